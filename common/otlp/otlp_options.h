// How spans are exported, and what OpenTelemetry's environment variables say of it.
#ifndef EXPERTMESH_COMMON_OTLP_OTLP_OPTIONS_H_
#define EXPERTMESH_COMMON_OTLP_OTLP_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/tls_options.h"

namespace expertmesh::otlp {

struct OtlpOptions {
  // As gRPC takes it: host:port, dns:///name:port or unix:/path.
  std::string target;
  // Unset: no encryption.
  std::optional<net::TlsOptions> tls = {};
  // Go along with each request; keys in lower case. They may be secrets: for no log.
  std::vector<std::pair<std::string, std::string>> headers = {};
  bool gzip = false;
  // The program's, told to collectors.
  std::string version = "unknown";
  // For one request. OpenTelemetry's default is 10 s; but a batch waits for the one before it, and
  // behind a collector that hangs a queue would fill in that time which a collector that is
  // reached again could have taken.
  absl::Duration timeout = absl::Seconds(2);
  // For one batch with all its attempts, and the pauses between them.
  absl::Duration export_timeout = absl::Seconds(30);
  // A batch that is not full is sent when its first span has waited so long.
  absl::Duration schedule_delay = absl::Seconds(5);
  // What waits. OpenTelemetry's default is 2048 spans, which a busy router makes in 20 ms; together
  // with a request under way these are at most 32 MiB.
  uint64_t max_queue_spans = 65536;
  uint64_t max_queue_bytes = 24 << 20;
  // One request.
  uint64_t max_batch_spans = 512;
  uint64_t max_batch_bytes = 3 << 20;
};

// Which new traces are kept (OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG).
struct SamplerOptions {
  // 0: none, 1: all.
  double ratio = 1;
  // Whether a trace that has begun elsewhere is kept as is said there.
  bool parent_based = true;
};

struct TracingSettings {
  // OTEL_SDK_DISABLED: no spans are to be made at all.
  bool disabled = false;
  // Unset: the environment names no sampler.
  std::optional<SamplerOptions> sampler = {};
  // Unset: spans are not exported.
  std::optional<OtlpOptions> exporter = {};
};

// The value of an environment variable. Empty is as good as unset.
using Environment = std::function<std::string(const std::string& name)>;

// Reads OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER, OTEL_TRACES_SAMPLER, OTEL_BSP_* and
// OTEL_EXPORTER_OTLP_* (in their stead OTEL_EXPORTER_OTLP_TRACES_*, where set), and the files with
// keys and certificates that they name, once. No exporter without an endpoint. Numbers and words
// that cannot be read count as unset, and add a line to `warnings`; none holds a value of a header.
//   INVALID_ARGUMENT  an endpoint, a protocol, a file or a certificate that cannot be used; the
//                     message names the variable and what to do.
absl::StatusOr<TracingSettings> ReadTracingSettings(const Environment& environment,
                                                    std::vector<std::string>* warnings);

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_COMMON_OTLP_OTLP_OPTIONS_H_
