// Asks the router's own checkpoint which weights are right, beside the requests.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_WEIGHT_VERIFIER_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_WEIGHT_VERIFIER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/checkpoint/digest_cache.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "router_service/mesh/weight_trust.h"

namespace expertmesh::mesh {

// Thread-safe. One thread of its own reads the checkpoint: experts whose holders differ at once and
// as fast as it can, all others at a bounded rate, each once. What it finds is kept beside the
// checkpoint (DigestCache).
class WeightVerifier {
 public:
  // `bytes_per_second`: how fast experts whose holders do not differ are read from the checkpoint;
  // 0: these are not read. `on_change` is called without locks, from the thread, when Judge would
  // say something else than before. `clock` must outlive the verifier.
  WeightVerifier(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                 uint64_t bytes_per_second, Clock* clock, std::function<void()> on_change);
  // Stops.
  ~WeightVerifier();
  WeightVerifier(const WeightVerifier&) = delete;
  WeightVerifier& operator=(const WeightVerifier&) = delete;

  // Ends reading and callbacks. Waits for the expert being read and for a running callback, so it
  // must not be called from one. May be called again, by one thread at a time.
  void Stop();

  // WeightTrust::Judge; what is not known of the experts of `nodes` is found out from now on.
  std::vector<DamagedExpert> Judge(absl::Span<const NodeHoldings> nodes);

 private:
  void Run();
  // Waits for the next expert to look at; false when stopping.
  bool Next(checkpoint::ExpertSliceId* id, bool* hurried);
  // What the cache has or else the checkpoint; `bytes`: that were read for it.
  absl::StatusOr<uint64_t> Find(const checkpoint::ExpertSliceId& id, uint64_t* bytes);
  // Writes the cache when it has grown.
  void Save();

  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  const uint64_t bytes_per_second_;
  Clock* const clock_;
  const std::function<void()> on_change_;

  absl::Mutex mutex_;
  absl::CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  WeightTrust trust_ ABSL_GUARDED_BY(mutex_);
  std::deque<checkpoint::ExpertSliceId> disputed_ ABSL_GUARDED_BY(mutex_);
  std::deque<checkpoint::ExpertSliceId> unverified_ ABSL_GUARDED_BY(mutex_);
  // Nodes that say no digests, by address: each is named in the log once.
  std::set<std::string> silent_ ABSL_GUARDED_BY(mutex_);
  // When the rate allows to read the next expert whose holders do not differ.
  absl::Time not_before_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();

  // Used by the thread alone.
  checkpoint::DigestCache cache_;
  size_t saved_ = 0;

  std::thread thread_;  // Last: starts when all else is there.
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_WEIGHT_VERIFIER_H_
