// What every measured caller does: it is told a load by a line of JSON, puts it on its system, and
// answers with a line.
#ifndef EXPERTMESH_TESTS_BENCH_BASELINES_MEASURED_LOAD_H_
#define EXPERTMESH_TESTS_BENCH_BASELINES_MEASURED_LOAD_H_

#include <cstddef>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace expertmesh::bench {

// Says "ready", then answers line by line until there is none. Ends with the first error.
absl::Status AnswerCommands(
    const std::function<absl::StatusOr<nlohmann::json>(const nlohmann::json& command)>& measure);

// Sends each of `requests` requests once, calls `begin`, then sends them in turn for as long as
// `command` says. `call` sends one and waits for its answer; callers are threads. Gives what all
// systems tell: number of requests, latencies, seconds, and CPU time and memory.
absl::StatusOr<nlohmann::json> MeasureLoad(
    const nlohmann::json& command, size_t requests,
    const std::function<absl::Status(size_t caller, size_t request)>& call,
    const std::function<void()>& begin);

}  // namespace expertmesh::bench

#endif  // EXPERTMESH_TESTS_BENCH_BASELINES_MEASURED_LOAD_H_
