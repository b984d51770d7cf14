#include "common/base/timer_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"

namespace expertmesh {
namespace {

TEST(TimerQueueTest, RunsCallbacksInOrderOfTheirTimeNotOfScheduling) {
  FakeClock clock;
  TimerQueue timers(&clock);
  std::vector<int> ran;
  absl::Notification last;
  const absl::Time start = clock.Now();
  timers.Schedule(start + absl::Seconds(3), [&] {
    ran.push_back(3);
    last.Notify();
  });
  timers.Schedule(start + absl::Seconds(1), [&] { ran.push_back(1); });
  timers.Schedule(start + absl::Seconds(2), [&] { ran.push_back(2); });
  clock.Advance(absl::Seconds(10));
  last.WaitForNotification();
  EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
}

TEST(TimerQueueTest, RunsNothingBeforeItsTime) {
  FakeClock clock;
  TimerQueue timers(&clock);
  absl::Notification early;
  absl::Notification late;
  timers.Schedule(clock.Now() + absl::Seconds(1), [&] { early.Notify(); });
  timers.Schedule(clock.Now() + absl::Seconds(5), [&] { late.Notify(); });
  clock.AwaitWaiters(1);
  clock.Advance(absl::Seconds(4));
  early.WaitForNotification();
  clock.AwaitWaiters(1);  // The queue waits again, for the second.
  EXPECT_FALSE(late.HasBeenNotified());
  clock.Advance(absl::Seconds(1));
  late.WaitForNotification();
}

// Counts how often a thread goes to sleep on it.
class SleepCounter final : public Clock {
 public:
  absl::Time Now() const override { return clock_.Now(); }
  bool WaitUntil(absl::Mutex* mutex, absl::CondVar* condition, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    ++sleeps_;
    return clock_.WaitUntil(mutex, condition, deadline);
  }

  FakeClock& clock() { return clock_; }
  int sleeps() const { return sleeps_; }

 private:
  FakeClock clock_;
  std::atomic<int> sleeps_{0};
};

// What every request does with its deadline.
TEST(TimerQueueTest, TimersThatAreCancelledBeforeTheyAreDueWakeTheThreadOnce) {
  SleepCounter counter;
  TimerQueue timers(&counter);
  for (int request = 0; request < 100; ++request) {
    const TimerQueue::Id id = timers.Schedule(
        counter.Now() + absl::Seconds(60) + request * absl::Milliseconds(1), [] { FAIL(); });
    counter.clock().AwaitWaiters(1);
    EXPECT_TRUE(timers.Cancel(id));
  }
  EXPECT_EQ(counter.sleeps(), 1);
  absl::Notification earlier;
  timers.Schedule(counter.Now() + absl::Seconds(1), [&] { earlier.Notify(); });
  counter.clock().Advance(absl::Seconds(1));
  earlier.WaitForNotification();
}

TEST(TimerQueueTest, ACancelledCallbackNeverRuns) {
  FakeClock clock;
  TimerQueue timers(&clock);
  bool cancelled_ran = false;
  absl::Notification other;
  const TimerQueue::Id id =
      timers.Schedule(clock.Now() + absl::Seconds(1), [&] { cancelled_ran = true; });
  timers.Schedule(clock.Now() + absl::Seconds(2), [&] { other.Notify(); });
  EXPECT_TRUE(timers.Cancel(id));
  EXPECT_FALSE(timers.Cancel(id));
  clock.Advance(absl::Seconds(3));
  other.WaitForNotification();
  EXPECT_FALSE(cancelled_ran);
}

TEST(TimerQueueTest, ManyRunInOrderWhateverWasCancelledBetween) {
  FakeClock clock;
  TimerQueue timers(&clock);
  std::mt19937 random(1);
  const absl::Time start = clock.Now();
  std::vector<std::pair<int, int>> ran;
  std::vector<std::pair<int, int>> expected;
  std::vector<std::pair<TimerQueue::Id, std::pair<int, int>>> scheduled;
  for (int i = 0; i < 500; ++i) {
    const std::pair<int, int> which(1 + static_cast<int>(random() % 50), i);
    const TimerQueue::Id id = timers.Schedule(start + absl::Seconds(which.first),
                                              [&ran, which] { ran.push_back(which); });
    scheduled.emplace_back(id, which);
    if (i % 2 == 1) {  // One of those that are left.
      const size_t victim = random() % scheduled.size();
      EXPECT_TRUE(timers.Cancel(scheduled[victim].first));
      scheduled.erase(scheduled.begin() + static_cast<ptrdiff_t>(victim));
    }
  }
  for (const auto& [id, which] : scheduled) {
    expected.push_back(which);
  }
  std::sort(expected.begin(), expected.end());
  absl::Notification last;
  timers.Schedule(start + absl::Seconds(100), [&] { last.Notify(); });
  clock.Advance(absl::Seconds(100));
  last.WaitForNotification();
  EXPECT_EQ(ran, expected);
}

TEST(TimerQueueTest, AwaitEndOutlastsARunningCallback) {
  FakeClock clock;
  TimerQueue timers(&clock);
  absl::Notification started;
  absl::Notification go_on;
  bool finished = false;
  const TimerQueue::Id id = timers.Schedule(clock.Now(), [&] {
    started.Notify();
    go_on.WaitForNotification();
    finished = true;
  });
  started.WaitForNotification();
  std::thread release([&] { go_on.Notify(); });
  EXPECT_FALSE(timers.Cancel(id));
  timers.AwaitEnd(id);
  EXPECT_TRUE(finished);
  release.join();
}

TEST(TimerQueueTest, NoTimerCanBeCancelled) {
  FakeClock clock;
  TimerQueue timers(&clock);
  EXPECT_FALSE(timers.Cancel(0));
  timers.AwaitEnd(0);  // Returns.
}

TEST(TimerSlotTest, HoldsTheLastTimer) {
  FakeClock clock;
  TimerQueue timers(&clock);
  TimerSlot slot(&timers);
  std::vector<int> ran;
  absl::Notification last;
  slot.Set(clock.Now() + absl::Seconds(1), [&] { ran.push_back(1); });
  slot.Set(clock.Now() + absl::Seconds(3), [&] {
    ran.push_back(3);
    last.Notify();
  });
  clock.Advance(absl::Seconds(5));
  last.WaitForNotification();
  EXPECT_EQ(ran, std::vector<int>{3});
  slot.Set(clock.Now() + absl::Seconds(1), [&] { ran.push_back(1); });
  slot.Cancel();
  timers.AwaitEnd(slot.CancelForGood());
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(ran, std::vector<int>{3});
}

TEST(TimerSlotTest, ItsEndOutlastsACallbackInWhosePlaceAnotherTimerIs) {
  FakeClock clock;
  TimerQueue timers(&clock);
  TimerSlot slot(&timers);
  absl::Notification started;
  absl::Notification go_on;
  bool finished = false;
  slot.Set(clock.Now(), [&] {
    started.Notify();
    go_on.WaitForNotification();
    finished = true;
  });
  started.WaitForNotification();
  slot.Set(clock.Now() + absl::Hours(1), [] {});
  const TimerQueue::Id begun = slot.CancelForGood();
  std::thread release([&] { go_on.Notify(); });
  timers.AwaitEnd(begun);
  EXPECT_TRUE(finished);
  release.join();
}

TEST(TimerQueueTest, DestructionDropsWhatIsPending) {
  FakeClock clock;
  bool ran = false;
  {
    TimerQueue timers(&clock);
    timers.Schedule(clock.Now() + absl::Hours(1), [&] { ran = true; });
  }
  EXPECT_FALSE(ran);
}

TEST(FakeClockTest, WaitUntilReturnsTrueOnlyWhenTheDeadlineHasCome) {
  FakeClock clock;
  absl::Mutex mutex;
  absl::CondVar condition;
  bool timed_out = false;
  const absl::Time deadline = clock.Now() + absl::Seconds(5);
  std::thread waiter([&] {
    absl::MutexLock lock(&mutex);
    while (!clock.WaitUntil(&mutex, &condition, deadline)) {
    }
    timed_out = true;
  });
  clock.AwaitWaiters(1);
  clock.Advance(absl::Seconds(5));
  waiter.join();
  EXPECT_TRUE(timed_out);
}

}  // namespace
}  // namespace expertmesh
