#include "common/base/thread_cpu_time.h"

#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "common/base/clock.h"

namespace expertmesh {
namespace {

// Works until it has used so much of the CPU; the time that passed.
absl::Duration Use(absl::Duration cpu) {
  const absl::Time begin = Clock::Real()->Now();
  const absl::Duration until = ThreadCpuTime() + cpu;
  while (ThreadCpuTime() < until) {
  }
  return Clock::Real()->Now() - begin;
}

TEST(ThreadCpuTimeTest, IsNoLongerThanTheTimeThatPasses) {
  // Clocks of the kernel differ by a little.
  EXPECT_GE(Use(absl::Milliseconds(20)), absl::Milliseconds(19));
}

TEST(ThreadCpuTimeTest, WaitingAndOtherThreadsDoNotCount) {
  absl::Notification done;
  const absl::Duration before = ThreadCpuTime();
  std::thread busy([&done] {
    Use(absl::Milliseconds(200));
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_LT(ThreadCpuTime() - before, absl::Milliseconds(100));
  busy.join();
}

}  // namespace
}  // namespace expertmesh
