#include "common/base/cpu_features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace expertmesh {
namespace {

using ::testing::HasSubstr;

TEST(CpuFeaturesTest, NamesAreReadBack) {
  for (const CpuIsa isa :
       {CpuIsa::kSse41, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512BF16, CpuIsa::kAmx}) {
    const absl::StatusOr<CpuIsa> read = ParseCpuIsa(NameOf(isa));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, isa);
  }
  const absl::Status refused = ParseCpuIsa("AVX").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("use sse41, avx2, avx512, avx512_bf16, amx"));
}

TEST(CpuFeaturesTest, UsesNoMoreThanTheMachineHasAndTheEnvironmentAllows) {
  const char* const limit = std::getenv("EXPERTMESH_MAX_CPU_ISA");
  const bool limited = limit != nullptr && *limit != '\0';
  const CpuIsa most = limited ? *ParseCpuIsa(limit) : CpuIsa::kAmx;
  EXPECT_EQ(UsableCpuIsa(), std::min(CpuIsaOfMachine(), most));
  EXPECT_EQ(CpuHasAvx2(), UsableCpuIsa() >= CpuIsa::kAvx2);
  EXPECT_EQ(CpuHasAvx512(), UsableCpuIsa() >= CpuIsa::kAvx512);
}

TEST(CpuFeaturesTest, AnUnknownLimitEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // The limit is read once in a process.
  EXPECT_EXIT(
      {
        setenv("EXPERTMESH_MAX_CPU_ISA", "avx1024", 1);
        UsableCpuIsa();
      },
      testing::ExitedWithCode(EXIT_FAILURE), "avx1024.*use sse41");
}

}  // namespace
}  // namespace expertmesh
