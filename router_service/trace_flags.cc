#include "router_service/trace_flags.h"

#include <unistd.h>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/version.h"
#include "common/trace/resource.h"

ABSL_FLAG(std::string, tracing, "on",
          "on: requests are traced, and the last traces kept in memory (expertmesh trace); off");
ABSL_FLAG(double, trace_ratio, 0.01,
          "Share of requests without a trace context that are sampled; those with one follow it");
ABSL_FLAG(absl::Duration, trace_slow, absl::Milliseconds(250),
          "Requests that take longer are traced whatever the ratio; inf: none for that");
ABSL_FLAG(double, trace_keep_per_second, 20,
          "Batches that are traced at most for being slow, failed or retried; 0: none");

namespace expertmesh::router {
namespace {

trace::TextAttributes ResourceOfThisProcess() {
  trace::TextAttributes attributes = trace::ResourceAttributesFromEnvironment();
  char host[256] = "localhost";
  (void)gethostname(host, sizeof(host) - 1);
  trace::AddDefault("service.version", ProgramVersion().number, &attributes);
  trace::AddDefault("service.instance.id", absl::StrCat(host, ":", getpid()), &attributes);
  trace::AddDefault("host.name", host, &attributes);
  return attributes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<tracing::Tracer>> TracerFromFlags() {
  const std::string tracing = absl::GetFlag(FLAGS_tracing);
  if (tracing != "on" && tracing != "off") {
    return absl::InvalidArgumentError(absl::StrCat("--tracing is '", tracing, "'; use on or off"));
  }
  tracing::TracerOptions options;
  options.keep.ratio = absl::GetFlag(FLAGS_trace_ratio);
  if (!(options.keep.ratio >= 0 && options.keep.ratio <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--trace-ratio is ", options.keep.ratio, "; use 0 to 1"));
  }
  options.keep.slow = absl::GetFlag(FLAGS_trace_slow);
  if (options.keep.slow < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--trace-slow is ", absl::FormatDuration(options.keep.slow), "; use 0 or more, or inf"));
  }
  options.keep.most_per_second = absl::GetFlag(FLAGS_trace_keep_per_second);
  if (!(options.keep.most_per_second >= 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--trace-keep-per-second is ", options.keep.most_per_second, "; use 0 or more"));
  }
  if (tracing == "off") {
    return std::unique_ptr<tracing::Tracer>();
  }
  options.resource = ResourceOfThisProcess();
  return std::make_unique<tracing::Tracer>(options, /*exporter=*/nullptr, Clock::Real());
}

}  // namespace expertmesh::router
