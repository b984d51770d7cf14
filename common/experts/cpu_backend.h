// Expert math on the CPU, by kernels that sum in one fixed order (common/matmul).
//
// A batch is computed in three phases, each a list of tasks that all threads work off:
// 1. up    per expert: gather its rows, multiply by gate and up, add biases, activation;
// 2. down  per expert: multiply by down; one float32 row per assignment;
// 3. sum   per row, in slot order: its assignments' rows plus the bias of down, times weights.
//
// Products are single-threaded; an expert with a large share of the work has its columns divided
// over several tasks.
//
// Submit computes on the thread that calls it, together with the worker threads, and completes the
// batch before it returns: a hand-over to another thread would cost more than a small batch. Calls
// from several threads run one after the other.
#ifndef EXPERTMESH_COMMON_EXPERTS_CPU_BACKEND_H_
#define EXPERTMESH_COMMON_EXPERTS_CPU_BACKEND_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "common/experts/backend.h"

namespace expertmesh::experts {

// The thread that calls Submit() is one of `threads`.
struct CpuBackendOptions : BackendOptions {
  // Asks the kernel for huge pages for packed weights (a few per cent faster; falls back silently).
  bool huge_pages = true;
  // Scratch memory that one batch may use, roughly; larger batches are computed in parts, with the
  // same result. Scratch memory is kept between batches.
  size_t max_scratch_bytes = size_t{512} << 20;
};

// Makes a backend whose packed experts may outlive it, but are taken by no other kind of backend.
//   INVALID_ARGUMENT  compute_dtype or threads out of range.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CPU_BACKEND_H_
