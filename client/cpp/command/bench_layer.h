// Measures one layer of a mesh under traffic.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_BENCH_LAYER_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_BENCH_LAYER_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/routed_hidden.h"
#include "client/cpp/command/traffic.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {

struct BenchOptions {
  TrafficOptions traffic;
  size_t tokens = 0;
  client::ForwardOptions forward;
  // Processes whose CPU time counts besides this one's.
  std::vector<pid_t> pids;
};

// Where an average request spent its time, in microseconds; they add up to its latency.
struct StageTimes {
  double queue = 0;       // In the router, until its batch was closed.
  double route = 0;       // Gate and plan.
  double node_queue = 0;  // In the node with the slowest answer.
  double compute = 0;     // There, too.
  double node_wire = 0;   // Between router and nodes, what overlaps counted once.
  double combine = 0;
  double client_wire = 0;  // All the rest: between caller and router, and in the caller.
};

struct LayerResult {
  uint32_t layer = 0;
  TrafficReport traffic;
  StageTimes stages;
  double cpu_seconds = 0;
  // Tokens of the batches that requests were part of, and nodes these were sent to, on average.
  double batch_tokens = 0;
  double batch_nodes = 0;
  // How unevenly the requests' tokens load the experts, by the routing that the router reports.
  double max_violation = 0;

  double TokensPerSecond(size_t tokens) const {
    return static_cast<double>(traffic.latencies_us.size() * tokens) / traffic.seconds;
  }
  double Latency(double share) const;
};

// Different requests that a benchmark sends in turn: enough that what a layer reads for one of them
// is not in a cache since the last.
std::vector<client::Matrix> MakeRequests(const HiddenMaker& maker, size_t tokens);

// Sends each request of `maker` once, to see where it goes and to warm up, and then the traffic.
// `stream` may be null: unary calls. A closed loop ends with the first error.
absl::StatusOr<LayerResult> BenchLayer(const Mesh& mesh, client::ForwardStream* stream,
                                       const client::LayerInfo& layer, const HiddenMaker& maker,
                                       const BenchOptions& options,
                                       const std::function<void()>& answered);

// `raw`: all latencies, too, in microseconds.
nlohmann::json ToJson(const LayerResult& result, size_t tokens, bool raw);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_BENCH_LAYER_H_
