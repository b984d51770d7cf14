// Counts heap allocations of the calling thread. Replaces the global operator new of the program
// that includes it: for one source file of a test.
#ifndef EXPERTMESH_TESTS_SUPPORT_ALLOCATION_COUNTER_H_
#define EXPERTMESH_TESTS_SUPPORT_ALLOCATION_COUNTER_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace expertmesh {

// Allocations of this thread since it began.
inline thread_local uint64_t allocation_count = 0;

inline void* CountedAllocation(size_t size, size_t alignment) {
  ++allocation_count;
  const size_t rounded = (size + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) {
    std::abort();
  }
  return memory;
}

}  // namespace expertmesh

// The array and non-throwing forms end in these. Not inlined: GCC would take the pairs for a
// mismatch.
#define EXPERTMESH_NOT_INLINED __attribute__((noinline))
EXPERTMESH_NOT_INLINED void* operator new(size_t size) {
  return expertmesh::CountedAllocation(size, alignof(std::max_align_t));
}
EXPERTMESH_NOT_INLINED void* operator new(size_t size, std::align_val_t alignment) {
  return expertmesh::CountedAllocation(size, static_cast<size_t>(alignment));
}
EXPERTMESH_NOT_INLINED void operator delete(void* memory) noexcept { std::free(memory); }
EXPERTMESH_NOT_INLINED void operator delete(void* memory, size_t) noexcept { std::free(memory); }
EXPERTMESH_NOT_INLINED void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
EXPERTMESH_NOT_INLINED void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}

#endif  // EXPERTMESH_TESTS_SUPPORT_ALLOCATION_COUNTER_H_
