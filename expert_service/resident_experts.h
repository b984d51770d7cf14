// Which of the hosted experts have their packed weights in memory, when there is not memory for
// all: the others are packed from the checkpoint when a batch needs them.
//
// A batch whose experts are all there is never held up by one whose experts are not. Those that
// wait are served in the order in which they came, one at a time: what it lacks is made room for
// and packed, so that two batches never wait for each other's memory. Threads that pack leave
// computing threads most of the CPU.
#ifndef EXPERTMESH_EXPERT_SERVICE_RESIDENT_EXPERTS_H_
#define EXPERTMESH_EXPERT_SERVICE_RESIDENT_EXPERTS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/expert_cache/expert_cache.h"
#include "expert_service/cache_metrics.h"
#include "expert_service/expert_lease.h"
#include "expert_service/expert_packer.h"
#include "expert_service/hosted_expert.h"
#include "expert_service/weight_memory.h"

namespace expertmesh::node {

struct ResidentExpertsOptions {
  // Most bytes of packed weights in memory; at least 1.
  uint64_t limit_bytes = 0;
  // Who stays: a name of expert_cache::CachePolicyNames().
  std::string policy = "frequency";
  // Threads that pack what batches wait for; at least 1.
  int threads = 1;
  Clock* clock = Clock::Real();
};

// Thread-safe. Outlives the experts that it knows.
class ResidentExperts {
 public:
  // Takes the packed experts, or why there are none. Runs without locks on a thread that packs, or
  // on the one that stops.
  using Done = absl::AnyInvocable<void(absl::StatusOr<ExpertLease>) &&>;

  // INVALID_ARGUMENT names the option.
  static absl::StatusOr<std::unique_ptr<ResidentExperts>> Create(
      const ResidentExpertsOptions& options, const ModelDescription& model, ExpertPacker packer,
      std::shared_ptr<CacheMetrics> metrics);
  // Stop().
  ~ResidentExperts();

  // Before an expert is packed that will be hosted: whether there is room for it beside those that
  // are there. If so, Host or Forget follows.
  bool KeepRoom(const ExpertSource& source, uint64_t bytes);
  // It is hosted from now on; `packed` is null where there was no room. Experts are told apart by
  // their address.
  void Host(const HostedExpert* expert, std::shared_ptr<const experts::PackedExpert> packed);
  // Room that was kept is not needed.
  void GiveBackRoom(const ExpertSource& source, uint64_t bytes);
  // It is hosted no more, and is about to go.
  void Forget(const HostedExpert* expert);

  // A batch uses `experts` of a layer, each named once, ascending. True when all are there; they
  // are in `lease`, then.
  bool TryAcquire(const HostedLayer& layer, absl::Span<const uint32_t> experts, ExpertLease* lease);
  // After TryAcquire said no: waits for them.
  //   DEADLINE_EXCEEDED  the deadline had passed when it was their turn.
  //   UNAVAILABLE        one cannot be packed again, or stopped.
  //   DATA_LOSS          the checkpoint's bytes are not those that were hosted.
  void Await(std::shared_ptr<const HostedLayer> layer, std::vector<uint32_t> experts,
             absl::Time deadline, Done done);

  // What waits ends with UNAVAILABLE. For good.
  void Stop();

  uint64_t limit_bytes() const { return memory_->limit_bytes(); }
  // Packed weights in memory, those that are still used and no longer kept included.
  uint64_t resident_bytes() const { return memory_->used_bytes(); }

 private:
  using Packed = std::shared_ptr<const experts::PackedExpert>;

  // Place for one expert of the model.
  struct Slot {
    const HostedExpert* hosted = nullptr;
    Packed packed;  // Null: not there, or being packed.
  };
  struct Waiting {
    std::shared_ptr<const HostedLayer> layer;
    std::vector<uint32_t> experts;
    absl::Time deadline;
    absl::Time since;
    Done done;
  };
  // The one that is served.
  struct Serving {
    explicit Serving(Waiting its_batch) : batch(std::move(its_batch)) {}

    Waiting batch;
    std::vector<Packed> packed;   // [experts of the batch]
    std::vector<size_t> missing;  // Places in `packed`.
    size_t next = 0;              // Place in `missing` of the next to pack.
    size_t unfinished = 0;
    absl::Status status;
  };
  // What is done without locks: calls, and memory that is freed.
  struct Outside {
    std::vector<std::pair<Done, absl::StatusOr<ExpertLease>>> answers;
    std::vector<Packed> freed;
    std::vector<std::shared_ptr<const HostedLayer>> layers;  // Likewise.
  };

  ResidentExperts(const ResidentExpertsOptions& options, const ModelDescription& model,
                  ExpertPacker packer, std::unique_ptr<expert_cache::CachePolicy> policy,
                  std::shared_ptr<CacheMetrics> metrics);

  size_t PlaceOf(uint32_t layer) const { return place_of_layer_.at(layer); }
  Slot& SlotOf(const HostedExpert& expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Null where it is not there.
  Packed Find(const HostedLayer& layer, uint32_t expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How many are there; if all, they are in `lease`.
  size_t Lease(const HostedLayer& layer, absl::Span<const uint32_t> experts, ExpertLease* lease)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Answer(Waiting batch, absl::StatusOr<ExpertLease> answer, Outside* outside)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What each thread does.
  void Run();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return serving_.has_value() ? serving_->next < serving_->missing.size() : !waiting_.empty();
  }
  // Takes the first that waits: makes room for what it lacks, or answers it.
  void Serve(Outside* outside) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What of the served batch is not there is to be packed; makes room for it.
  void FindMissing(Outside* outside) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Packs the next expert of the served batch; answers it after the last.
  void PackNext(Outside* outside) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Packed> Pack(const HostedExpert& expert) ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish(Outside* outside) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void DoOutside(Outside outside);

  const ExpertPacker packer_;
  Clock* const clock_;
  const std::shared_ptr<CacheMetrics> metrics_;
  const std::shared_ptr<WeightMemory> memory_;
  absl::flat_hash_map<uint32_t, size_t> place_of_layer_;

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  expert_cache::ExpertCache cache_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<Slot>> slots_ ABSL_GUARDED_BY(mutex_);
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  std::optional<Serving> serving_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex join_mutex_;            // Stop() may come from several threads.
  std::vector<std::thread> threads_;  // Last.
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_RESIDENT_EXPERTS_H_
