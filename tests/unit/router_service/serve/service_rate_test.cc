#include "router_service/serve/service_rate.h"

#include <gtest/gtest.h>

namespace expertmesh::serve {
namespace {

class ServiceRateTest : public testing::Test {
 protected:
  // `held` tokens are held for so long, and of 100 every 10 ms so many are served.
  void Load(uint64_t held, absl::Duration time, uint64_t served = 100) {
    for (const absl::Time end = now_ + time; now_ < end;) {
      now_ += absl::Milliseconds(10);
      rate_.Update(held, served, now_);
    }
  }
  void ExpectTime(uint64_t tokens, double seconds) const {
    const auto time = rate_.TimeFor(tokens, now_);
    ASSERT_TRUE(time.has_value());
    EXPECT_NEAR(absl::ToDoubleSeconds(*time), seconds, 0.05 * seconds);
  }

  ServiceRate rate_;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(ServiceRateTest, IsKnownOnceThereHasBeenSomethingToDoForAWhile) {
  EXPECT_FALSE(rate_.TimeFor(1, now_).has_value());
  Load(1000, absl::Milliseconds(50));
  EXPECT_FALSE(rate_.TimeFor(1000, now_).has_value());
  Load(1000, absl::Milliseconds(100));
  ExpectTime(1000, 0.1);
  ExpectTime(4000, 0.4);
}

TEST_F(ServiceRateTest, OfASmallLoadSaysNothingOfALargeOne) {
  Load(10, absl::Seconds(1), 1);
  ExpectTime(10, 0.1);
  EXPECT_FALSE(rate_.TimeFor(4096, now_).has_value());
}

TEST_F(ServiceRateTest, IsNotWhatWasAskedForWhileThereWasNothingElseToDo) {
  for (int i = 0; i < 100; ++i) {
    Load(50, absl::Milliseconds(50), 1);
    Load(0, absl::Milliseconds(10), 1);
  }
  EXPECT_FALSE(rate_.TimeFor(50, now_).has_value());
}

TEST_F(ServiceRateTest, FollowsNodesThatComeAndGo) {
  Load(1000, absl::Seconds(1));
  Load(1000, absl::Seconds(2), 10);
  ExpectTime(1000, 1.0);
  Load(1000, absl::Seconds(2), 200);
  ExpectTime(1000, 0.05);
}

TEST_F(ServiceRateTest, FallsButNotToNothingWhileNothingIsServed) {
  Load(1000, absl::Seconds(1));
  const absl::Duration before = *rate_.TimeFor(1000, now_);
  Load(1000, absl::Milliseconds(1100), 0);
  EXPECT_GE(*rate_.TimeFor(1000, now_), 1.2 * before);
  EXPECT_LE(*rate_.TimeFor(1000, now_), 2 * before);
  Load(1000, absl::Seconds(10), 0);
  EXPECT_TRUE(rate_.TimeFor(1000, now_).has_value());
}

TEST_F(ServiceRateTest, IsForgotten) {
  Load(1000, absl::Seconds(1));
  Load(0, absl::Milliseconds(10));
  now_ += absl::Seconds(3);
  EXPECT_FALSE(rate_.TimeFor(1, now_).has_value());
  EXPECT_FALSE(rate_.rate(now_).has_value());
}

}  // namespace
}  // namespace expertmesh::serve
