#include "router_service/trace_flags.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/environment.h"
#include "common/base/status_macros.h"
#include "common/base/version.h"
#include "common/trace/resource.h"

ABSL_FLAG(
    std::string, tracing, "on",
    "on: requests are traced, the last traces are kept in memory (expertmesh trace) and, where "
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, sent there; off");
ABSL_FLAG(std::optional<double>, trace_ratio, std::nullopt,
          "Share of requests without a trace context that are sampled; those with one follow it. "
          "Default: what OTEL_TRACES_SAMPLER says, or 0.01");
ABSL_FLAG(absl::Duration, trace_slow, absl::Milliseconds(250),
          "Requests that take longer are traced whatever the ratio; inf: none for that");
ABSL_FLAG(double, trace_keep_per_second, 20,
          "Batches that are traced at most for being slow, failed or retried; 0: none");

namespace expertmesh::router {
namespace {

constexpr absl::Duration kFlushTime = absl::Seconds(2);

trace::TextAttributes ResourceOfThisProcess() {
  trace::TextAttributes attributes = trace::ResourceAttributesFromEnvironment();
  char host[256] = "localhost";
  (void)gethostname(host, sizeof(host) - 1);
  trace::AddDefault("service.version", ProgramVersion().number, &attributes);
  trace::AddDefault("service.instance.id", absl::StrCat(host, ":", getpid()), &attributes);
  trace::AddDefault("host.name", host, &attributes);
  return attributes;
}

absl::StatusOr<tracing::KeepOptions> KeepFromFlags(
    const std::optional<otlp::SamplerOptions>& sampler) {
  tracing::KeepOptions keep;
  if (sampler.has_value()) {
    keep.ratio = sampler->ratio;
    keep.parent_based = sampler->parent_based;
  }
  keep.ratio = absl::GetFlag(FLAGS_trace_ratio).value_or(keep.ratio);
  if (!(keep.ratio >= 0 && keep.ratio <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--trace-ratio is ", keep.ratio, "; use 0 to 1"));
  }
  keep.slow = absl::GetFlag(FLAGS_trace_slow);
  if (keep.slow < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--trace-slow is ", absl::FormatDuration(keep.slow), "; use 0 or more, or inf"));
  }
  keep.most_per_second = absl::GetFlag(FLAGS_trace_keep_per_second);
  if (!(keep.most_per_second >= 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--trace-keep-per-second is ", keep.most_per_second, "; use 0 or more"));
  }
  return keep;
}

}  // namespace

Tracing::~Tracing() {
  tracer_.reset();
  if (exporter_ == nullptr) {
    return;
  }
  if (const uint64_t lost = exporter_->Shutdown(Clock::Real()->Now() + kFlushTime); lost > 0) {
    spdlog::warn("{} spans were not exported before the process ended", lost);
  }
}

absl::StatusOr<Tracing> TracingFromFlags(net::GrpcRuntime* runtime) {
  const std::string tracing = absl::GetFlag(FLAGS_tracing);
  if (tracing != "on" && tracing != "off") {
    return absl::InvalidArgumentError(absl::StrCat("--tracing is '", tracing, "'; use on or off"));
  }
  std::vector<std::string> warnings;
  ASSIGN_OR_RETURN(otlp::TracingSettings settings,
                   otlp::ReadTracingSettings(EnvironmentVariable, &warnings));
  for (const std::string& warning : warnings) {
    spdlog::warn("{}", warning);
  }
  tracing::TracerOptions options;
  ASSIGN_OR_RETURN(options.keep, KeepFromFlags(settings.sampler));
  if (tracing == "off" || settings.disabled) {
    return Tracing(nullptr, nullptr);
  }
  options.resource = ResourceOfThisProcess();
  std::unique_ptr<otlp::OtlpExporter> exporter;
  if (settings.exporter.has_value()) {
    settings.exporter->version = ProgramVersion().number;
    exporter = std::make_unique<otlp::OtlpExporter>(
        *settings.exporter, otlp::MakeTraceService(runtime, *settings.exporter), Clock::Real());
    spdlog::info("spans go to {}", settings.exporter->target);
  }
  auto tracer = std::make_unique<tracing::Tracer>(options, exporter.get(), Clock::Real());
  return Tracing(std::move(exporter), std::move(tracer));
}

}  // namespace expertmesh::router
