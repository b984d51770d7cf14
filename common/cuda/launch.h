// Launches of kernels from host code that any C++ compiler reads: no <<<>>>. Tests compile the same
// code against tests/cuda_host, which runs kernels on the CPU.
#ifndef EXPERTMESH_COMMON_CUDA_LAUNCH_H_
#define EXPERTMESH_COMMON_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <tuple>
#include <type_traits>

#ifdef EXPERTMESH_CUDA_HOST
#include <utility>
#include <vector>

#include "cuda_host/launch.h"
#endif

namespace expertmesh::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // Dynamic shared memory of a block.
};

#ifdef EXPERTMESH_CUDA_HOST
// Adds the pointers in a kernel's argument. A struct that holds some has
//   template <typename F> void ForEachPointer(F f) const;
template <typename T>
void CollectPointers(const T& argument, std::vector<const void*>* pointers) {
  if constexpr (std::is_pointer_v<T>) {
    pointers->push_back(argument);
  } else if constexpr (std::is_class_v<T>) {
    argument.ForEachPointer([pointers](const void* pointer) { pointers->push_back(pointer); });
  }
}
#endif

// Enqueues `kernel` on `stream`. Arguments are converted to the kernel's parameters and copied
// during the call: pointers, numbers, and trivially copyable structs of them. What they point to
// must live until the launch was executed. Thread-safe. Returns what the launch itself returns;
// an error of the execution shows at a later call.
template <typename... Params, typename... Args>
cudaError_t Launch(void (*kernel)(Params...), const LaunchShape& shape, cudaStream_t stream,
                   Args... args) {
  static_assert(sizeof...(Params) == sizeof...(Args));
  static_assert((std::is_trivially_copyable_v<std::decay_t<Params>> && ...));
  std::tuple<std::decay_t<Params>...> values{static_cast<std::decay_t<Params>>(args)...};
#ifdef EXPERTMESH_CUDA_HOST
  std::vector<const void*> pointers;
  std::apply([&](const auto&... value) { (CollectPointers(value, &pointers), ...); }, values);
  return cuda_host::LaunchKernel(
      reinterpret_cast<const void*>(kernel), shape.grid, shape.block, shape.shared_bytes, stream,
      [kernel, values] { std::apply(kernel, values); }, std::move(pointers));
#else
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  return std::apply(
      [&](auto&... value) {
        void* pointers[] = {const_cast<void*>(static_cast<const void*>(&value))..., nullptr};
        return cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers);
      },
      values);
#endif
}

}  // namespace expertmesh::cuda

#endif  // EXPERTMESH_COMMON_CUDA_LAUNCH_H_
