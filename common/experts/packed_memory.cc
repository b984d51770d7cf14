#include "common/experts/packed_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace expertmesh::experts {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

PackedMemory::~PackedMemory() {
  if (data_ != nullptr) {
    munmap(data_, size_);
  }
}

PackedMemory& PackedMemory::operator=(PackedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

size_t PackedMemory::HeldBytes(size_t size) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (size + page - 1) / page * page;
}

absl::StatusOr<PackedMemory> PackedMemory::Allocate(size_t size, bool huge_pages) {
  if (size > std::numeric_limits<size_t>::max() / 2) {
    return absl::ResourceExhaustedError(
        absl::StrCat("packed weights of ", size, " bytes cannot fit in memory"));
  }
  const size_t whole = HeldBytes(size);
  const bool huge = huge_pages && whole >= kHugePage;
  const size_t mapped = whole + (huge ? kHugePage : 0);
  void* const map = whole == 0 ? MAP_FAILED
                               : mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", size, " bytes of packed weights (", std::strerror(errno),
                     "); host fewer experts on this node or give it more memory"));
  }
  PackedMemory memory;
  uint8_t* const start = static_cast<uint8_t*>(map);
  memory.data_ = start;
  memory.size_ = whole;
  if (huge) {
    // Cut the range so that it starts on a huge page.
    const size_t skip = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
    if (skip > 0) {
      munmap(start, skip);
    }
    if (kHugePage > skip) {
      munmap(start + skip + whole, kHugePage - skip);
    }
    memory.data_ = start + skip;
    madvise(memory.data_, whole, MADV_HUGEPAGE);
  }
  return memory;
}

}  // namespace expertmesh::experts
