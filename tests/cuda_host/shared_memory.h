// The shared memory of the block that runs: its dynamic part, which ends at a page that cannot be
// touched, and the kernel's __shared__ variables.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_SHARED_MEMORY_H_
#define EXPERTMESH_TESTS_CUDA_HOST_SHARED_MEMORY_H_

#include <cstddef>
#include <vector>

#include "tests/cuda_host/symbols.h"

namespace expertmesh::cuda_host {

// Not thread-safe.
class SharedMemory {
 public:
  SharedMemory();

  // Poisons all that a block of `kernel` shares, with `bytes` of dynamic memory.
  void Begin(const void* kernel, size_t bytes);
  // Dies if something beside the dynamic memory was written.
  void End() const;

  char* dynamic() const { return dynamic_; }
  // Whether all `bytes` at `address` are shared memory of the block.
  bool Holds(const void* address, size_t bytes) const;

 private:
  char* memory_ = nullptr;
  char* end_ = nullptr;  // The page after it cannot be touched.
  char* dynamic_ = nullptr;
  size_t bytes_ = 0;
  const std::vector<Variable>* variables_ = nullptr;
};

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_SHARED_MEMORY_H_
