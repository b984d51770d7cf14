#include "common/otlp/trace_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"

namespace expertmesh::otlp {
namespace {

constexpr char kExport[] = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

net::GrpcOptions GrpcOptionsOf(const OtlpOptions& options) {
  net::GrpcOptions grpc;
  // The most that an answer may have, as the protocol recommends; a request has less.
  grpc.max_message_bytes = size_t{4} << 20;
  // Servers of other people end connections that ping more often than every two hours. What counts
  // is that with keepalive gRPC also bounds how long what was sent may stay unacknowledged: a
  // collector whose machine is gone is noticed after so long, and not after a quarter of an hour.
  grpc.keepalive_time = absl::Hours(3);
  grpc.keepalive_timeout = absl::Seconds(20);
  // As OpenTelemetry's specification of exporters has it, behind whose it is.
  grpc.user_agent =
      absl::StrCat("expertmesh/", options.version, " OTel-OTLP-Exporter-cpp/", options.version);
  grpc.tls = options.tls;
  return grpc;
}

class GrpcTraceService final : public TraceService {
 public:
  GrpcTraceService(net::GrpcRuntime* runtime, const OtlpOptions& options)
      : headers_(options.headers),
        gzip_(options.gzip),
        client_(runtime, options.target, GrpcOptionsOf(options)) {}

  std::shared_ptr<net::ClientCall> Export(const Frame& request, absl::Duration timeout,
                                          Done done) override {
    net::CallOptions call;
    call.deadline = Clock::Real()->Now() + timeout;
    call.metadata = headers_;
    call.gzip = gzip_;
    return client_.UnaryCall(kExport, request, call, std::move(done));
  }

 private:
  const std::vector<std::pair<std::string, std::string>> headers_;
  const bool gzip_;
  net::GrpcClient client_;
};

}  // namespace

std::unique_ptr<TraceService> MakeTraceService(net::GrpcRuntime* runtime,
                                               const OtlpOptions& options) {
  return std::make_unique<GrpcTraceService>(runtime, options);
}

}  // namespace expertmesh::otlp
