#include "tests/cuda_host/shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/cuda_host/block.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/memory.h"

namespace expertmesh::cuda_host {
namespace {

constexpr size_t kMargin = 256;  // Before the dynamic memory; checked.
constexpr size_t kAlignment = 16;

bool IsPoison(const char* begin, const char* end) {
  return std::all_of(begin, end, [](char c) { return c == static_cast<char>(kPoison); });
}

}  // namespace

SharedMemory::SharedMemory() {
  const size_t bytes = RoundUp(kLargestSharedBytes + kMargin, PageBytes());
  memory_ = static_cast<char*>(mmap(nullptr, bytes + PageBytes(), PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (memory_ == MAP_FAILED) {
    Die("no memory for shared memory");
  }
  end_ = memory_ + bytes;
  mprotect(end_, PageBytes(), PROT_NONE);
}

void SharedMemory::Begin(const void* kernel, size_t bytes) {
  bytes_ = bytes;
  dynamic_ = end_ - RoundUp(bytes, kAlignment);
  std::memset(dynamic_ - kMargin, kPoison, static_cast<size_t>(end_ - dynamic_) + kMargin);
  variables_ = &SharedVariablesOf(kernel);
  for (const Variable& variable : *variables_) {
    std::memset(variable.address, kPoison, variable.bytes);
  }
}

void SharedMemory::End() const {
  if (!IsPoison(dynamic_ - kMargin, dynamic_)) {
    Die(absl::StrCat(RunningThread(), ": something wrote before the dynamic shared memory"));
  }
  if (!IsPoison(dynamic_ + bytes_, end_)) {
    Die(absl::StrCat(RunningThread(), ": something wrote past the ", bytes_,
                     " bytes of dynamic shared memory"));
  }
}

bool SharedMemory::Holds(const void* address, size_t bytes) const {
  const char* first = static_cast<const char*>(address);
  const auto inside = [&](const char* begin, size_t size) {
    return first >= begin && first + bytes <= begin + size;
  };
  return inside(dynamic_, bytes_) ||
         std::any_of(variables_->begin(), variables_->end(),
                     [&](const Variable& v) { return inside(v.address, v.bytes); });
}

}  // namespace expertmesh::cuda_host
