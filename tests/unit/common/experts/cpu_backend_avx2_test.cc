// The CPU backend on a machine without AVX-512, which oneDNN is told this is. A program of its own:
// that setting is for the whole process.
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <utility>

#include "common/experts/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/unit/common/experts/backend_conformance.h"

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

BackendCase Case(std::string name, WeightStorage storage) {
  BackendCase backend_case;
  backend_case.name = std::move(name);
  backend_case.make = [storage](int threads) {
    return MakeCpuBackend({DType::kF32, threads, storage});
  };
  backend_case.tolerance = 1e-5;
  backend_case.stores_checkpoint_bytes = storage == WeightStorage::kCompressed;
  return backend_case;
}

INSTANTIATE_TEST_SUITE_P(Avx2, BackendConformance,
                         testing::Values(Case("f32", WeightStorage::kExpanded),
                                         Case("f32_compressed", WeightStorage::kCompressed)),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace expertmesh
