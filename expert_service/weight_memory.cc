#include "expert_service/weight_memory.h"

#include <utility>

#include "common/base/check.h"

namespace expertmesh::node {

bool WeightMemory::TryReserve(uint64_t bytes) {
  const absl::MutexLock lock(&mutex_);
  if (!Fits(bytes)) {
    return false;
  }
  used_ += bytes;
  return true;
}

bool WeightMemory::Reserve(uint64_t bytes) {
  const auto done = [this, bytes]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopped_ || Fits(bytes); };
  const absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&done));
  if (stopped_) {
    return false;
  }
  used_ += bytes;
  return true;
}

void WeightMemory::Free(uint64_t bytes) {
  const absl::MutexLock lock(&mutex_);
  EXPERTMESH_CHECK(bytes <= used_);
  used_ -= bytes;
}

std::shared_ptr<const experts::PackedExpert> WeightMemory::Count(
    std::shared_ptr<const experts::PackedExpert> expert, uint64_t reserved) {
  const experts::PackedExpert* const pointer = expert.get();
  const auto free = [memory = shared_from_this(), expert = std::move(expert),
                     reserved](const experts::PackedExpert*) mutable {
    expert.reset();  // First: only then it is free.
    memory->Free(reserved);
  };
  return {pointer, free};
}

void WeightMemory::Stop() {
  const absl::MutexLock lock(&mutex_);
  stopped_ = true;
}

uint64_t WeightMemory::used_bytes() const {
  const absl::MutexLock lock(&mutex_);
  return used_;
}

}  // namespace expertmesh::node
