// The CPU backend on a machine with AVX-512 but without AMX, which this program says it is: oneDNN
// multiplies bf16 there. A program of its own: that setting is for the whole process.
#include <oneapi/dnnl/dnnl.hpp>

#include "common/experts/cpu_backend.h"
#include "common/matmul/tile_product.h"
#include "gtest/gtest.h"
#include "tests/unit/common/experts/cpu_backend_case.h"

namespace expertmesh {
namespace {

// Before oneDNN is used for the first time.
const bool kLimited =
    dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16) == dnnl::status::success;

TEST(CpuBackendAvx512Test, KeepsFromTilesWhenOneDnnIsKept) {
  ASSERT_TRUE(kLimited);
  EXPECT_FALSE(TilesAvailable());
}

INSTANTIATE_TEST_SUITE_P(Avx512, BackendConformance,
                         testing::Values(CpuCase("bf16", DType::kBF16, 1e-2),
                                         CpuCase("bf16_compressed", DType::kBF16, 1e-2,
                                                 WeightStorage::kCompressed)),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace expertmesh
