#include "expert_service/memory_ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace expertmesh::node {

absl::Status MemoryLedger::CheckLimit(uint64_t more) const {
  if (limit_bytes_ == 0 || more <= limit_bytes_ - std::min(limit_bytes_, held_ + reserved_)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "experts need ", more, " bytes more, ", held_ + reserved_, " of the limit of ", limit_bytes_,
      " are in use; load fewer, unload some, or raise ", "--memory-limit-bytes"));
}

absl::Status MemoryLedger::Reserve(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  absl::Status status = CheckLimit(bytes);
  if (status.ok()) {
    reserved_ += bytes;
  }
  return status;
}

void MemoryLedger::Unreserve(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  EXPERTMESH_CHECK(bytes <= reserved_);
  reserved_ -= bytes;
}

absl::Status MemoryLedger::AddEntry(uint64_t reserved, const ExpertMemory& memory, uint64_t* id) {
  absl::MutexLock lock(&mutex_);
  EXPERTMESH_CHECK(reserved <= reserved_);
  if (memory.bytes > reserved) {
    absl::Status status = CheckLimit(memory.bytes - reserved);
    if (!status.ok()) {
      return status;
    }
  }
  reserved_ -= reserved;
  held_ += memory.bytes;
  checkpoint_ += memory.checkpoint_bytes;
  *id = next_id_++;
  entries_[*id] = memory;
  return absl::OkStatus();
}

void MemoryLedger::RemoveEntry(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(id);
  EXPERTMESH_CHECK(entry != entries_.end());
  held_ -= entry->second.bytes;
  checkpoint_ -= entry->second.checkpoint_bytes;
  entries_.erase(entry);
  removed_.SignalAll();
}

void MemoryLedger::AwaitRemoved(absl::Span<const uint64_t> ids) const {
  absl::MutexLock lock(&mutex_);
  for (const uint64_t id : ids) {
    while (entries_.contains(id)) {
      removed_.Wait(&mutex_);
    }
  }
}

uint64_t MemoryLedger::used_bytes() const {
  absl::MutexLock lock(&mutex_);
  return held_ + reserved_;
}

uint64_t MemoryLedger::held_bytes() const {
  absl::MutexLock lock(&mutex_);
  return held_;
}

uint64_t MemoryLedger::checkpoint_bytes() const {
  absl::MutexLock lock(&mutex_);
  return checkpoint_;
}

}  // namespace expertmesh::node
