// Runs blocks of a launch, one at a time, each thread a fiber. Threads meet where CUDA says they
// do: barriers, shuffles, warp-wide instructions. Between meetings they run one after the other, in
// an order that changes each time.
//
// Used by the one system thread that executes queued work at the moment.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_BLOCK_H_
#define EXPERTMESH_TESTS_CUDA_HOST_BLOCK_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "cuda_runtime_api.h"
#include "tests/cuda_host/random.h"

namespace expertmesh::cuda_host {

struct KernelLaunch {
  const void* kernel = nullptr;
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  std::function<void()> body;  // One thread.
  std::vector<const void*> pointers;
};

// Runs block `block` of the launch until all its threads have returned. Shared memory begins
// poisoned.
void RunBlock(const KernelLaunch& launch, uint3 block, Random& random);

// "kernel K, block (0, 0, 0), thread (1, 0, 0)" while a thread of a kernel runs, else "".
std::string RunningThread();

// Whether `address` is where the running thread's stack would have to grow to.
bool IsBelowRunningStack(const void* address);

// Dynamic shared memory that a block can ask for at most.
inline constexpr size_t kLargestSharedBytes = 227 << 10;

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_BLOCK_H_
