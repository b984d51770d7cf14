// The CPU backend on a machine without AVX-512, which oneDNN is told this is. A program of its own:
// that setting is for the whole process.
#include <oneapi/dnnl/dnnl.hpp>

#include "common/experts/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/unit/common/experts/cpu_backend_case.h"

namespace expertmesh {
namespace {

// Before oneDNN is used for the first time.
const bool kLimited = dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2) == dnnl::status::success;

TEST(CpuBackendAvx2Test, RefusesBF16) {
  ASSERT_TRUE(kLimited);
  EXPECT_FALSE(CpuSupportsBF16());
  const auto backend = MakeCpuBackend({DType::kBF16, 1});
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(backend.status().message().find("F32"), absl::string_view::npos);
}

INSTANTIATE_TEST_SUITE_P(Avx2, BackendConformance,
                         testing::Values(CpuCase("f32", DType::kF32, 1e-5),
                                         CpuCase("f32_compressed", DType::kF32, 1e-5,
                                                 WeightStorage::kCompressed)),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace expertmesh
