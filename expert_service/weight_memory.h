// Memory for packed weights that may not pass a limit, also while batches still hold some of it.
#ifndef EXPERTMESH_EXPERT_SERVICE_WEIGHT_MEMORY_H_
#define EXPERTMESH_EXPERT_SERVICE_WEIGHT_MEMORY_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/experts/backend.h"

namespace expertmesh::node {

// Thread-safe. Shared with the experts that it counts, so it outlives them all.
class WeightMemory : public std::enable_shared_from_this<WeightMemory> {
 public:
  static std::shared_ptr<WeightMemory> Create(uint64_t limit_bytes) {
    return std::shared_ptr<WeightMemory>(new WeightMemory(limit_bytes));
  }

  // Sets memory aside. False when the limit would be passed; Reserve then waits until others have
  // freed enough, and returns false only after Stop().
  bool TryReserve(uint64_t bytes);
  bool Reserve(uint64_t bytes);
  // What was set aside is not used.
  void Free(uint64_t bytes);

  // `expert`, for which `reserved` bytes are set aside: they are free again when it is.
  std::shared_ptr<const experts::PackedExpert> Count(
      std::shared_ptr<const experts::PackedExpert> expert, uint64_t reserved);

  // Ends every wait.
  void Stop();

  uint64_t used_bytes() const;
  uint64_t limit_bytes() const { return limit_bytes_; }

 private:
  explicit WeightMemory(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  bool Fits(uint64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return used_ + bytes <= limit_bytes_;
  }

  const uint64_t limit_bytes_;
  mutable absl::Mutex mutex_;
  uint64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_WEIGHT_MEMORY_H_
