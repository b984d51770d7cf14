#include "router_service/tracing/keep_policy.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace expertmesh::tracing {
namespace {

TEST(KeepPolicyTest, ErrorsComeBeforeRetriesBeforeSlowness) {
  KeepOptions options;
  options.slow = absl::Milliseconds(10);
  const absl::Duration slow = absl::Milliseconds(11);
  const absl::StatusCode ok = absl::StatusCode::kOk;
  EXPECT_EQ(KeepFor(options, absl::StatusCode::kNotFound, slow, true), Keep::kFailed);
  EXPECT_EQ(KeepFor(options, ok, slow, true), Keep::kRetried);
  EXPECT_EQ(KeepFor(options, ok, slow, false), Keep::kSlow);
  EXPECT_EQ(KeepFor(options, ok, absl::Milliseconds(10), false), Keep::kNo);
  options.slow = absl::InfiniteDuration();
  EXPECT_EQ(KeepFor(options, ok, absl::Hours(1), false), Keep::kNo);
}

TEST(KeepLimitTest, ABurstOfASecondThenTheRate) {
  KeepLimit limit(10);
  absl::Time now = absl::UnixEpoch() + absl::Hours(1);
  int taken = 0;
  for (int i = 0; i < 100; ++i) {
    taken += limit.Take(now) ? 1 : 0;
  }
  EXPECT_EQ(taken, 10);
  for (int i = 0; i < 100; ++i) {  // Two seconds.
    now += absl::Milliseconds(20);
    taken += limit.Take(now) ? 1 : 0;
  }
  EXPECT_EQ(taken, 30);
  now += absl::Hours(1);
  EXPECT_TRUE(limit.Take(now));
}

TEST(KeepLimitTest, NoneAtAll) {
  KeepLimit limit(0);
  EXPECT_FALSE(limit.Take(absl::UnixEpoch() + absl::Hours(1)));
  EXPECT_FALSE(limit.Take(absl::UnixEpoch() + absl::Hours(2)));
}

}  // namespace
}  // namespace expertmesh::tracing
