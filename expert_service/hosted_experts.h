// The experts a node holds. Compute reads an immutable snapshot per layer; loading and unloading
// put a new one in its place, so neither ever waits for the other.
#ifndef EXPERTMESH_EXPERT_SERVICE_HOSTED_EXPERTS_H_
#define EXPERTMESH_EXPERT_SERVICE_HOSTED_EXPERTS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/base/thread_cpu_time.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"
#include "expert_service/expert_packer.h"
#include "expert_service/expert_selection.h"
#include "expert_service/hosted_expert.h"
#include "expert_service/memory_ledger.h"
#include "expert_service/resident_experts.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh::node {

struct HostedExpertsOptions {
  // Largest sum of weights held, in bytes; 0: no limit.
  uint64_t memory_limit_bytes = 0;
  // Threads that pack at the same time; at least 1.
  int load_threads = 1;
  // Measures how long a gentle load rests. Outlives the experts.
  Clock* clock = Clock::Real();
  // CPU time of the thread that asks: what a gentle load has worked.
  std::function<absl::Duration()> cpu_time = ThreadCpuTime;
  // Has the packed weights where there is not memory for all; null: all are kept here. Outlives the
  // experts.
  ResidentExperts* resident = nullptr;
};

// Thread-safe. Changes (Load, Unload) happen one after the other, in the order they came.
class HostedExperts {
 public:
  // When loaded experts are offered: all of a request together (and none when it fails), for a node
  // that serves meanwhile: one thread packs, for a 32nd of the node's CPU at most and when the
  // others leave it that: it rests before the next expert, of this request or of a later one. Or
  // layer by layer as they are ready, as fast as load_threads can.
  enum class Publish { kTogether, kPerLayer };

  // Experts of the request ready, and experts to load in all. Called from loading threads, one call
  // at a time.
  using Progress = std::function<void(uint64_t done, uint64_t total)>;

  // Asked when the turn of a change has come; an error ends it, with nothing changed. Null: always.
  using Permit = std::function<absl::Status()>;

  // `backend` must outlive this object. `on_change` is called, without locks, after every change of
  // what is held.
  HostedExperts(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                experts::Backend* backend, HostedExpertsOptions options,
                std::function<void()> on_change);

  // Loads what is not held yet; returns how many experts that were. Blocks until they are ready.
  //   NOT_FOUND            no such layer or expert, or this node lacks the file that has it;
  //   nothing
  //                        is loaded.
  //   INVALID_ARGUMENT     impossible slice, or one expert asked for as two slices.
  //   FAILED_PRECONDITION  an expert is held as another slice.
  //   RESOURCE_EXHAUSTED   the memory limit would be passed, or a layer would not fit in memory
  //                        (ResidentExperts); found before anything is packed.
  //   CANCELLED            Stop() was called.
  absl::StatusOr<uint64_t> Load(absl::Span<const LayerExperts> request, Publish publish,
                                const Progress& progress = nullptr, const Permit& permit = nullptr);

  // The checks of Load, memory included, without loading.
  absl::Status CheckLoad(absl::Span<const LayerExperts> request) const;

  // Offers the experts no more, waits until batches that use them are done and their memory is
  // free; returns how many were held. Slices are ignored.
  //   NOT_FOUND  no such layer or expert; nothing is unloaded.
  absl::StatusOr<uint64_t> Unload(absl::Span<const LayerExperts> request,
                                  const Permit& permit = nullptr);

  // Null when nothing of `layer` is held (or it is not a MoE layer).
  std::shared_ptr<const HostedLayer> FindLayer(uint32_t layer) const;

  // Ascending by layer, then one entry per slice.
  std::vector<v1::HostedExperts> Describe() const;

  const MemoryLedger& memory() const { return *ledger_; }

  // Makes a running Load, and every later one, end with CANCELLED.
  void Stop();

 private:
  struct Item {
    ExpertSource source;
    uint64_t reserved_bytes;
    std::shared_ptr<const HostedExpert> loaded;
  };
  using Layers = absl::flat_hash_map<uint32_t, std::shared_ptr<const HostedLayer>>;

  // While one exists no other thread is in Load or Unload.
  class ExclusiveChange {
   public:
    explicit ExclusiveChange(HostedExperts* owner);
    ~ExclusiveChange();

   private:
    HostedExperts* const owner_;
  };

  // What Load has to do, sorted by layer and expert.
  absl::StatusOr<std::vector<Item>> Plan(absl::Span<const LayerExperts> request) const;
  absl::Status PlanOne(const LayerExperts& wanted, const Layers& held,
                       std::vector<Item>* items) const;
  // What the expert will hold once it is packed. 0 when its weights cannot be read or packed:
  // packing tells why. NOT_FOUND when the file that has them is missing.
  absl::StatusOr<uint64_t> BytesToReserve(const ExpertSource& source) const;
  // A batch may need all experts of a layer at once. RESOURCE_EXHAUSTED when they cannot all be in
  // memory.
  absl::Status CheckLayersFit(absl::Span<const Item> items, const Layers& held) const;
  static uint64_t ReservedBytes(absl::Span<const Item> items);
  // `one_done` is called by one thread at a time.
  absl::Status PackAll(absl::Span<Item> items, Publish publish,
                       const std::function<void()>& one_done);
  absl::Status PackOne(Item* item);
  // `pack`: it is held packed, not just known.
  absl::Status ReadOne(Item* item, bool pack);
  // After a rest for the one before.
  absl::Status PackGently(Item* item);
  // Or until Stop() is called.
  void RestUntil(absl::Time until);
  void PublishItems(absl::Span<const Item> items);
  std::shared_ptr<const Layers> layers() const;
  void SetLayers(std::shared_ptr<const Layers> layers);

  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  const ExpertPacker packer_;
  const HostedExpertsOptions options_;
  const std::function<void()> on_change_;
  const std::shared_ptr<MemoryLedger> ledger_;
  std::atomic<bool> stopping_{false};
  // No expert is loaded gently before. Belongs to the change whose turn it is.
  absl::Time rests_until_ = absl::InfinitePast();

  mutable absl::Mutex mutex_;
  absl::CondVar stopped_;
  bool changing_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<const Layers> layers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_HOSTED_EXPERTS_H_
