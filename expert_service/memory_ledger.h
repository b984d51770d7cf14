// Accounts for the memory of packed weights and tells when experts are gone for good.
#ifndef EXPERTMESH_EXPERT_SERVICE_MEMORY_LEDGER_H_
#define EXPERTMESH_EXPERT_SERVICE_MEMORY_LEDGER_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

namespace expertmesh {

// Thread-safe. Shared by the experts that it accounts for, so it outlives them all.
class MemoryLedger {
 public:
  // `limit_bytes` 0: no limit.
  explicit MemoryLedger(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // Sets memory aside before it is allocated.
  //   RESOURCE_EXHAUSTED  the limit would be passed; nothing is set aside.
  absl::Status Reserve(uint64_t bytes);
  void Unreserve(uint64_t bytes);

  // Turns `reserved` bytes into `actual` bytes held by a new entry, and returns its id in `*id`.
  //   RESOURCE_EXHAUSTED  `actual` passes the limit; the reservation is left as it was.
  absl::Status Enter(uint64_t reserved, uint64_t actual, uint64_t* id);
  // The entry's memory has been freed.
  void Leave(uint64_t id, uint64_t bytes);

  // Blocks until none of `ids` is left.
  void AwaitGone(absl::Span<const uint64_t> ids) const;

  // Held and set aside.
  uint64_t used_bytes() const;
  // Held by entries.
  uint64_t held_bytes() const;
  uint64_t limit_bytes() const { return limit_bytes_; }

 private:
  absl::Status CheckLimit(uint64_t more) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t limit_bytes_;
  mutable absl::Mutex mutex_;
  mutable absl::CondVar left_;
  uint64_t reserved_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t held_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_set<uint64_t> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh

#endif  // EXPERTMESH_EXPERT_SERVICE_MEMORY_LEDGER_H_
