// The CPU backend on a machine with AVX-512 but without AMX, which this program says it is: oneDNN
// multiplies bf16 there. A program of its own: that setting is for the whole process.
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <utility>

#include "common/experts/cpu_backend.h"
#include "common/experts/tile_product.h"
#include "gtest/gtest.h"
#include "tests/unit/common/experts/backend_conformance.h"

namespace expertmesh {
namespace {

// Before oneDNN is used for the first time.
const bool kLimited =
    dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16) == dnnl::status::success;

TEST(CpuBackendAvx512Test, KeepsFromTilesWhenOneDnnIsKept) {
  ASSERT_TRUE(kLimited);
  EXPECT_FALSE(TilesAvailable());
}

BackendCase Case(std::string name, WeightStorage storage) {
  BackendCase backend_case;
  backend_case.name = std::move(name);
  backend_case.make = [storage](int threads) {
    return MakeCpuBackend({DType::kBF16, threads, storage});
  };
  backend_case.tolerance = 1e-2;
  backend_case.stores_checkpoint_bytes = storage == WeightStorage::kCompressed;
  if (!CpuSupportsBF16()) {
    backend_case.skip = "this CPU has no bf16";
  }
  return backend_case;
}

INSTANTIATE_TEST_SUITE_P(Avx512, BackendConformance,
                         testing::Values(Case("bf16", WeightStorage::kExpanded),
                                         Case("bf16_compressed", WeightStorage::kCompressed)),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace expertmesh
