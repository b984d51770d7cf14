#include "common/net/pulse.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/notification.h"
#include "common/net/grpc_runtime.h"
#include "tests/support/too_long.h"

namespace expertmesh::net {
namespace {

TEST(PulseTest, BeatsInTimeAreNoPause) {
  FakeClock clock;
  Pulse pulse(&clock);
  for (int i = 0; i < 10; ++i) {
    clock.Advance(kPulsePeriod + kPulseSlack);
    EXPECT_EQ(pulse.AwakeSince(), absl::InfinitePast());
    pulse.Beat();
    EXPECT_EQ(pulse.AwakeSince(), absl::InfinitePast());
  }
}

TEST(PulseTest, ALateBeatEndsAPauseAndAMissingOneIsStillOne) {
  FakeClock clock;
  Pulse pulse(&clock);
  clock.Advance(kPulsePeriod + kPulseSlack + absl::Milliseconds(1));
  EXPECT_EQ(pulse.AwakeSince(), clock.Now());
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(pulse.AwakeSince(), clock.Now());
  pulse.Beat();
  const absl::Time end = clock.Now();
  clock.Advance(kPulsePeriod);
  EXPECT_EQ(pulse.AwakeSince(), end);
  pulse.Beat();
  EXPECT_EQ(pulse.AwakeSince(), end);
}

// Occupies the thread of a queue until it is let go.
struct Hold final : Tag {
  void Proceed(bool) override {
    begun.Notify();
    end.WaitForNotification();
  }
  absl::Notification begun;
  absl::Notification end;
};

TEST(PulseTest, ARuntimeKnowsThatAThreadOfItsIsBusy) {
  GrpcRuntime runtime(2);
  Hold hold;
  grpc::Alarm alarm;
  alarm.Set(runtime.queues().back().get(), gpr_now(GPR_CLOCK_MONOTONIC), static_cast<Tag*>(&hold));
  hold.begun.WaitForNotification();
  const absl::Time held = Clock::Real()->Now();
  while (runtime.AwakeSince() < held) {
    ASSERT_LT(Clock::Real()->Now() - held, kTooLong);
  }
  const absl::Time let_go = Clock::Real()->Now();
  hold.end.Notify();
  while (runtime.AwakeSince() >= Clock::Real()->Now() - absl::Milliseconds(1)) {
    ASSERT_LT(Clock::Real()->Now() - let_go, kTooLong);
  }
  EXPECT_GT(runtime.AwakeSince(), held);
}

}  // namespace
}  // namespace expertmesh::net
