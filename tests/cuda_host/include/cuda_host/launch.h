// How common/cuda/launch.h hands a kernel to the harness.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_LAUNCH_H_
#define EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_LAUNCH_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "cuda_runtime_api.h"

namespace expertmesh::cuda_host {

// Enqueues a launch. `kernel` is the kernel's address; `body` runs one thread of it with its
// arguments; `pointers` are all pointers among them, which must be null or in device or pinned
// memory. Errors are those that a real launch returns.
cudaError_t LaunchKernel(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                         cudaStream_t stream, std::function<void()> body,
                         std::vector<const void*> pointers);

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_LAUNCH_H_
