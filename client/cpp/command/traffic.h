// Traffic for anything that answers requests, and what was seen of it.
//
// Closed loop: every caller sends its next request when the last one is answered. Open loop:
// requests are sent at fixed times whatever becomes of the others, and a latency counts from the
// time its request was meant to be sent, so that what waits behind a stall is seen to wait.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_TRAFFIC_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_TRAFFIC_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace expertmesh::command {

struct TrafficOptions {
  // Closed loop only.
  size_t callers = 1;
  // Requests that each caller sends (open loop: all together). With `duration`, requests are sent
  // until so much time has passed instead.
  uint64_t requests = 1;
  std::optional<absl::Duration> duration;
  // Requests per second, open loop; 0: closed loop.
  double rate = 0;
};

struct TrafficReport {
  // The first error; a closed loop stops there, an open one counts and goes on.
  absl::Status status;
  uint64_t failed = 0;
  // From the first request until the last answer.
  double seconds = 0;
  // One for each request that succeeded, in any order.
  std::vector<double> latencies_us;
};

// Sends request `index` of `caller` and calls `done` once, from any thread, this one included.
using SendRequest =
    std::function<void(size_t caller, uint64_t index, std::function<void(absl::Status)> done)>;

// `answered` is called after every answer, from any thread; may be empty.
TrafficReport RunTraffic(const TrafficOptions& options, const SendRequest& send,
                         const std::function<void()>& answered);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_TRAFFIC_H_
