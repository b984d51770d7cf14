#include "tests/cuda_host/objects.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/symbols.h"

namespace expertmesh::cuda_host {

Objects& Objects::Get() {
  static auto* const objects = new Objects();
  return *objects;
}

void Objects::Keep(absl::string_view kind, const void* raw, std::shared_ptr<void> object) {
  std::vector<void*> made_by = Stack();
  const absl::MutexLock lock(&mutex_);
  living_[raw] = {std::string(kind), std::move(object), std::move(made_by), ++made_};
}

std::shared_ptr<void> Objects::Hold(absl::string_view call, absl::string_view kind,
                                    const void* object) {
  const absl::MutexLock lock(&mutex_);
  const auto found = living_.find(object);
  if (found == living_.end() || found->second.kind != kind) {
    Die(absl::StrCat(call, " of what is no ", kind, ", or was destroyed"));
  }
  return found->second.object;
}

void Objects::Check(absl::string_view call, absl::string_view kind, const void* object) {
  Hold(call, kind, object);
}

void Objects::Remove(absl::string_view call, absl::string_view kind, const void* object) {
  std::shared_ptr<void> held = Hold(call, kind, object);
  const absl::MutexLock lock(&mutex_);
  destroyed_.push_back(std::move(held));
  living_.erase(object);
}

std::vector<std::string> Objects::Leaks() {
  const absl::MutexLock lock(&mutex_);
  std::vector<std::string> leaks;
  for (const auto& [raw, entry] : living_) {
    leaks.push_back(
        absl::StrCat(entry.kind, " ", entry.number, " (made by ", Describe(entry.made_by), ")"));
  }
  return leaks;
}

void Objects::Reset() {
  const absl::MutexLock lock(&mutex_);
  living_.clear();
  destroyed_.clear();
  made_ = 0;
}

}  // namespace expertmesh::cuda_host
