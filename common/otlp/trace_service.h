// The seam to the collector: the one call that an exporter makes.
#ifndef EXPERTMESH_COMMON_OTLP_TRACE_SERVICE_H_
#define EXPERTMESH_COMMON_OTLP_TRACE_SERVICE_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_runtime.h"
#include "common/otlp/otlp_options.h"
#include "common/wire/frame.h"

namespace expertmesh::otlp {

// The service TraceService of OpenTelemetry's protocol.
class TraceService {
 public:
  using Done = std::function<void(absl::StatusOr<Frame>)>;

  virtual ~TraceService() = default;

  // Sends an ExportTraceServiceRequest. Never blocks. `done` gets the ExportTraceServiceResponse or
  // why there is none, once, on any thread, about `timeout` after now at the latest; it may come
  // after this object is gone, and must not block. The call is never null.
  virtual std::shared_ptr<net::ClientCall> Export(const Frame& request, absl::Duration timeout,
                                                  Done done) = 0;
};

// The collector that `options` names. `runtime` must outlive it. Connects on first use, never
// through a proxy of the environment.
std::unique_ptr<TraceService> MakeTraceService(net::GrpcRuntime* runtime,
                                               const OtlpOptions& options);

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_COMMON_OTLP_TRACE_SERVICE_H_
