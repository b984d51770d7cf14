// Expert math on a GPU: README.md. What it promises of bits holds on one kind of device.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_CUDA_BACKEND_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_CUDA_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/experts/backend.h"

namespace expertmesh::experts {

// Who multiplies.
enum class CudaProduct {
  // Kernels that sum in one order: a row's bits do not depend on its batch.
  kFixedOrder,
  // cuBLAS, which chooses kernels by shape: the last bits of a row may depend on its batch.
  kCublas,
};

// `threads` says nothing here. `weights` must be kExpanded.
struct CudaBackendOptions : BackendOptions {
  // As the CUDA runtime counts those that the process may see.
  int device = 0;
  CudaProduct product = CudaProduct::kFixedOrder;
  // Memory of the device for packed experts, in bytes; 0: as much as there is. Pack answers
  // RESOURCE_EXHAUSTED rather than pass it.
  uint64_t device_memory_bytes = 0;
  // Memory of the device that one batch in flight may use for what it computes, roughly; larger
  // batches are computed in parts, with the same result. It is kept between batches.
  size_t max_scratch_bytes = size_t{512} << 20;
  // Called once, when the device is lost, with the status that all further calls get: on any thread
  // that calls the backend or is one of its own. It must not call the backend.
  std::function<void(const absl::Status&)> on_device_lost;
};

// Makes a backend whose packed experts may outlive it, but are taken by no other.
//
// Beyond what Backend says: two batches in flight overlap their copies and their products; further
// ones wait in a queue, so that Submit never blocks. Completions run on a thread of the backend,
// or, for batches that are refused, inside Submit. A completion holds up one of the two places in
// flight while it runs. Calls after the device was lost end with UNAVAILABLE.
//   INVALID_ARGUMENT     options out of range.
//   UNIMPLEMENTED        weights that are kept compressed.
//   FAILED_PRECONDITION  there is no such GPU, or no driver.
//   RESOURCE_EXHAUSTED   no memory.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_CUDA_BACKEND_H_
