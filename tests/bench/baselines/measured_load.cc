#include "tests/bench/baselines/measured_load.h"

#include <sys/resource.h>

#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "client/cpp/command/cpu_time.h"
#include "client/cpp/command/traffic.h"
#include "common/base/status_macros.h"

namespace expertmesh::bench {

using nlohmann::json;

absl::Status AnswerCommands(
    const std::function<absl::StatusOr<json>(const json& command)>& measure) {
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    ASSIGN_OR_RETURN(const json answer, measure(json::parse(line)));
    std::cout << answer.dump() << std::endl;
  }
  return absl::OkStatus();
}

absl::StatusOr<json> MeasureLoad(
    const json& command, size_t requests,
    const std::function<absl::Status(size_t caller, size_t request)>& call,
    const std::function<void()>& begin) {
  const std::vector<pid_t> pids = command.at("pids").get<std::vector<pid_t>>();
  const command::SendRequest send = [&](size_t caller, uint64_t index,
                                        const std::function<void(absl::Status)>& done) {
    done(call(caller, (caller * 7 + index) % requests));
  };
  command::TrafficOptions traffic;
  traffic.callers = command.at("callers");
  // Every request once, as for the mesh, which is asked for their routing first.
  traffic.requests = (requests + traffic.callers - 1) / traffic.callers;
  RETURN_IF_ERROR(command::RunTraffic(traffic, send, nullptr).status);
  traffic.duration = absl::Seconds(command.at("seconds").get<double>());
  begin();
  ASSIGN_OR_RETURN(const double cpu_before, command::CpuSeconds(pids));
  const command::TrafficReport report = command::RunTraffic(traffic, send, nullptr);
  ASSIGN_OR_RETURN(const double cpu_after, command::CpuSeconds(pids));
  RETURN_IF_ERROR(report.status);
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return json{{"requests", report.latencies_us.size()},
              {"seconds", report.seconds},
              {"latencies_us", report.latencies_us},
              {"cpu_seconds", cpu_after - cpu_before},
              {"caller_peak_bytes", static_cast<uint64_t>(usage.ru_maxrss) * 1024}};
}

}  // namespace expertmesh::bench
