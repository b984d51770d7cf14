// Accounts for the memory of weights and tells when experts are gone for good.
#ifndef EXPERTMESH_EXPERT_SERVICE_MEMORY_LEDGER_H_
#define EXPERTMESH_EXPERT_SERVICE_MEMORY_LEDGER_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

namespace expertmesh::node {

// What one expert takes.
struct ExpertMemory {
  // Held by the backend.
  uint64_t bytes = 0;
  // In the checkpoint: values, scales and biases of its slice.
  uint64_t checkpoint_bytes = 0;
};

// Thread-safe. Shared by the experts that it accounts for, so it outlives them all.
class MemoryLedger {
 public:
  // `limit_bytes` 0: no limit.
  explicit MemoryLedger(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // Sets memory aside before it is allocated.
  //   RESOURCE_EXHAUSTED  the limit would be passed; nothing is set aside.
  absl::Status Reserve(uint64_t bytes);
  void Unreserve(uint64_t bytes);

  // Turns `reserved` bytes into a new entry that holds `memory`, and returns its id in `*id`.
  //   RESOURCE_EXHAUSTED  its bytes pass the limit; the reservation is left as it was.
  absl::Status AddEntry(uint64_t reserved, const ExpertMemory& memory, uint64_t* id);
  // The entry's memory has been freed.
  void RemoveEntry(uint64_t id);

  // Blocks until none of `ids` is left.
  void AwaitRemoved(absl::Span<const uint64_t> ids) const;

  // Held and set aside.
  uint64_t used_bytes() const;
  // Held by entries, and what these take in the checkpoint.
  uint64_t held_bytes() const;
  uint64_t checkpoint_bytes() const;
  uint64_t limit_bytes() const { return limit_bytes_; }

 private:
  absl::Status CheckLimit(uint64_t more) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t limit_bytes_;
  mutable absl::Mutex mutex_;
  mutable absl::CondVar removed_;
  uint64_t reserved_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t held_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t checkpoint_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<uint64_t, ExpertMemory> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_MEMORY_LEDGER_H_
