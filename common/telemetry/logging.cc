#include "common/telemetry/logging.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/cpu_features.h"

namespace expertmesh::telemetry {

absl::Status InitLogging(absl::string_view process, absl::string_view level) {
  const std::string name(level);
  const spdlog::level::level_enum parsed = spdlog::level::from_str(name);
  if (parsed == spdlog::level::off && name != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-level is '", name, "'; use trace, debug, info, warning, error or off"));
  }
  auto logger = std::make_shared<spdlog::logger>(std::string(process),
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n: %v", spdlog::pattern_time_type::utc);
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::warn);
  spdlog::flush_every(std::chrono::seconds(1));
  spdlog::set_default_logger(std::move(logger));
  spdlog::info("cpu {}, instruction sets up to {}", CpuModelName(),
               std::string(NameOf(UsableCpuIsa())));
  return absl::OkStatus();
}

}  // namespace expertmesh::telemetry
