// CUDA backends for the conformance suite, on the harness.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CUDA_CUDA_BACKEND_CASE_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CUDA_CUDA_BACKEND_CASE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/unit/common/experts/backend_conformance.h"
#include "tests/unit/common/experts/cuda/owned_batch.h"

namespace expertmesh::experts {

inline std::string NameOfCase(Dtype dtype, CudaProduct product, uint64_t seed) {
  return absl::StrCat(dtype == Dtype::kBF16 ? "bf16" : "f32",
                      product == CudaProduct::kCublas ? "_cublas" : "", "_seed", seed);
}

// `seed`: of the order in which the harness runs threads, blocks and streams.
inline BackendCase CudaCase(Dtype dtype, CudaProduct product, uint64_t seed) {
  BackendCase backend_case;
  backend_case.name = NameOfCase(dtype, product, seed);
  backend_case.make = [dtype, product, seed](int) -> absl::StatusOr<std::unique_ptr<Backend>> {
    // A test's first backend begins with a device of its own.
    if (cuda_host::Leaks().empty()) {
      cuda_host::Reset(seed);
      // What blocks do to one another is found by smaller launches as well.
      cuda_host::CheckBlocksUpTo(16);
    }
    return MakeCudaBackend(CudaOptions(dtype, product));
  };
  backend_case.tolerance = dtype == Dtype::kBF16 ? 1e-2 : 1e-5;
  backend_case.bits_of_rows = product == CudaProduct::kFixedOrder;
  backend_case.most_work = 8e6;
  return backend_case;
}

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CUDA_CUDA_BACKEND_CASE_H_
