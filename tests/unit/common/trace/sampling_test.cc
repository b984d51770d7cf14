#include "common/trace/sampling.h"

#include <bitset>
#include <set>

#include "gtest/gtest.h"

namespace expertmesh::trace {
namespace {

TEST(SamplingTest, IdsAreValidAndDiffer) {
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) {
    const TraceId id = NewTraceId();
    EXPECT_TRUE(id.valid());
    EXPECT_TRUE(seen.insert(id.low).second);
    EXPECT_TRUE(seen.insert(NewSpanId()).second);
  }
}

TEST(SamplingTest, AShareOfAllIsKept) {
  const RatioSampler sampler(0.25);
  int kept = 0;
  for (int i = 0; i < 20000; ++i) {
    kept += sampler.Keeps(NewTraceId()) ? 1 : 0;
  }
  EXPECT_NEAR(kept, 5000, 400);  // Six standard deviations.
}

// The thresholds that OpenTelemetry's specification gives as examples.
TEST(SamplingTest, TheThresholdIsToldAsOthersTellIt) {
  EXPECT_EQ(RatioSampler(1.0).tracestate(), "ot=th:0");
  EXPECT_EQ(RatioSampler(0.5).tracestate(), "ot=th:8");
  EXPECT_EQ(RatioSampler(0.25).tracestate(), "ot=th:c");
  EXPECT_EQ(RatioSampler(0.01).tracestate().substr(0, 12), "ot=th:fd70a3");
}

TEST(SamplingTest, OnlyTheLastSevenBytesCount) {
  const RatioSampler half(0.5);
  EXPECT_TRUE(half.Keeps({0, 0x0080000000000000}));
  EXPECT_FALSE(half.Keeps({~uint64_t{0}, 0xff7fffffffffffff}));
}

TEST(SamplingTest, AllAndNone) {
  const TraceId least{1, 0};
  const TraceId most{1, ~uint64_t{0}};
  EXPECT_TRUE(RatioSampler(1.0).Keeps(least));
  EXPECT_TRUE(RatioSampler(7.0).Keeps(least));
  EXPECT_FALSE(RatioSampler(0.0).Keeps(most));
  EXPECT_FALSE(RatioSampler(-1.0).Keeps(most));
}

}  // namespace
}  // namespace expertmesh::trace
