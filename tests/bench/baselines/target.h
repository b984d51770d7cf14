// What the mesh is compared with: something that takes a request and answers it.
#ifndef EXPERTMESH_TESTS_BENCH_BASELINES_TARGET_H_
#define EXPERTMESH_TESTS_BENCH_BASELINES_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/expertmesh/client.h"
#include "common/checkpoint/moe_checkpoint.h"

namespace expertmesh::bench {

// Bytes of the messages of one request on each hop: caller to forwarder and back, forwarder to echo
// and back. Also how a request of two_bare_hops and raw_tcp begins.
struct HopSizes {
  uint32_t up1 = 0;
  uint32_t down1 = 0;
  uint32_t up2 = 0;
  uint32_t down2 = 0;
};

// What experts did since it was last asked.
struct ExpertWork {
  uint64_t compute_us = 0;
  // Size of the weights of the experts that were hit.
  uint64_t weight_bytes = 0;
  double flops = 0;
};

// Thread-safe.
class Target {
 public:
  virtual ~Target() = default;
  // Blocks until the request is answered. Calls of one `caller` come one after the other.
  virtual absl::Status Call(size_t caller, const client::Matrix& hidden) = 0;
  // Sets how many bytes all later calls move; for targets that only move bytes.
  virtual void SetSizes(const HopSizes&) {}
  virtual ExpertWork TakeWork() { return {}; }
};

struct TargetOptions {
  std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint;
  uint32_t layer = 0;
  // Threads that compute.
  int threads = 1;
  // Where its servers are.
  std::vector<std::string> addresses;
};

// The experts of the project's library in the caller's process.
absl::StatusOr<std::unique_ptr<Target>> MakeInProcess(const TargetOptions& options);
// As many bytes as the mesh moves over gRPC as the mesh sets it up, and nothing computed:
// caller -> forwarder -> echo.
absl::StatusOr<std::unique_ptr<Target>> MakeTwoBareHops(const TargetOptions& options);
// The same over plain sockets.
absl::StatusOr<std::unique_ptr<Target>> MakeRawTcp(const TargetOptions& options);
// Servers of single experts: rows come back unweighted and the caller sums them. `grouped`: an RPC
// for each expert that a request chose, with all rows that go there; else for each row, too.
absl::StatusOr<std::unique_ptr<Target>> MakeRpcPerExpert(const TargetOptions& options,
                                                         bool grouped);

// Their servers run until a signal comes. `port_file` as WritePortFile takes it.
struct ServeOptions {
  std::string listen;
  std::string port_file;
  // Used by forwarders only: the address of the echo server.
  std::string next;
};
absl::Status ServeGrpcEcho(const ServeOptions& options);
absl::Status ServeGrpcForward(const ServeOptions& options);
absl::Status ServeTcpEcho(const ServeOptions& options);
absl::Status ServeTcpForward(const ServeOptions& options);
// Part `shard` of `shards` of the experts.
absl::Status ServeExperts(const ServeOptions& options, const TargetOptions& experts, uint32_t shard,
                          uint32_t shards);

// Which of `shards` servers has the expert.
inline uint32_t ShardOf(uint32_t expert, uint32_t experts, uint32_t shards) {
  return static_cast<uint32_t>(uint64_t{expert} * shards / experts);
}

}  // namespace expertmesh::bench

#endif  // EXPERTMESH_TESTS_BENCH_BASELINES_TARGET_H_
