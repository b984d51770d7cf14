// The flags of tracing, and what they make.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACE_FLAGS_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACE_FLAGS_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "common/net/grpc_runtime.h"
#include "common/otlp/otlp_exporter.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::router {

// Null where there is none; destroyed in order: what was noted becomes spans, which are exported as
// far as that is done within two seconds.
class Tracing {
 public:
  Tracing(std::unique_ptr<otlp::OtlpExporter> exporter, std::unique_ptr<tracing::Tracer> tracer)
      : exporter_(std::move(exporter)), tracer_(std::move(tracer)) {}
  Tracing(Tracing&&) = default;
  ~Tracing();

  tracing::Tracer* tracer() const { return tracer_.get(); }
  const otlp::OtlpExporter* exporter() const { return exporter_.get(); }

 private:
  std::unique_ptr<otlp::OtlpExporter> exporter_;
  std::unique_ptr<tracing::Tracer> tracer_;
};

// By the flags, and where these say nothing by OpenTelemetry's environment variables
// (common/otlp/otlp_options.h). `runtime` must outlive it.
//   INVALID_ARGUMENT  names the flag or the variable, and what it may be.
absl::StatusOr<Tracing> TracingFromFlags(net::GrpcRuntime* runtime);

}  // namespace expertmesh::router

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACE_FLAGS_H_
