#include "gtest/gtest.h"
#include "tests/unit/common/experts/cuda/cuda_backend_case.h"

namespace expertmesh::experts {
namespace {

INSTANTIATE_TEST_SUITE_P(Cuda, BackendConformance,
                         testing::Values(CudaCase(Dtype::kBF16, CudaProduct::kFixedOrder, 1),
                                         CudaCase(Dtype::kBF16, CudaProduct::kFixedOrder, 2),
                                         CudaCase(Dtype::kF32, CudaProduct::kFixedOrder, 3),
                                         CudaCase(Dtype::kBF16, CudaProduct::kCublas, 4),
                                         CudaCase(Dtype::kF32, CudaProduct::kCublas, 5)),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace expertmesh::experts
