// What libexpertmesh_cuda.so exports: one function, which gives the rest. Both sides are of one
// build, so that C++ types may cross; the module is never closed.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_MODULE_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_MODULE_H_

#include "absl/status/statusor.h"
#include "common/experts/device.h"

namespace expertmesh::experts {

struct CudaModule {
  // ProgramVersion().Text().
  const char* build;
  // UNAVAILABLE, and what is missing, where there is no driver. Thread-safe.
  absl::StatusOr<int> (*count_devices)();
  // `device` is below count_devices(). Thread-safe.
  absl::StatusOr<Device> (*open)(int device, const DeviceOptions& options);
};

inline constexpr char kCudaModuleFile[] = "libexpertmesh_cuda.so";
inline constexpr char kCudaModuleFunction[] = "ExpertmeshCudaModule";
using CudaModuleFunction = const CudaModule* (*)();

}  // namespace expertmesh::experts

// Defines the function that a module exports, which gives what `describe` returns: a CudaModule
// that lives as long as the process.
#define EXPERTMESH_CUDA_MODULE(describe)                                                   \
  extern "C" __attribute__((visibility("default"))) const expertmesh::experts::CudaModule* \
  ExpertmeshCudaModule() {                                                                 \
    return describe();                                                                     \
  }

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_MODULE_H_
