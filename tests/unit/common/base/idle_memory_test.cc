#include "common/base/idle_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"

namespace expertmesh {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kStart = 50 * kMiB;

// A process, looked at once for each interval.
class Process {
 public:
  bool Interval(uint64_t moved, uint64_t resident) {
    moved_ += moved;
    return detector_.Look(moved_, resident);
  }
  void GiveBack(uint64_t left) { detector_.GaveBack(left); }
  // Intervals of `moved` bytes each until it gives back; `most` when it does not.
  int Rest(uint64_t moved, uint64_t resident, int most = 100) {
    for (int i = 1; i < most; ++i) {
      if (Interval(moved, resident)) {
        return i;
      }
    }
    return most;
  }

 private:
  RestDetector detector_;
  uint64_t moved_ = 0;
};

TEST(RestDetectorTest, WhatTrafficLeftIsGivenBackOnceItHasEnded) {
  Process process;
  EXPECT_EQ(process.Rest(0, kStart), 100) << "nothing was freed";
  for (int i = 0; i < 60; ++i) {
    ASSERT_FALSE(process.Interval(100 * kMiB, 1000 * kMiB)) << "busy";
  }
  EXPECT_EQ(process.Rest(0, 1000 * kMiB), RestDetector::kIntervals);
  process.GiveBack(60 * kMiB);
  EXPECT_EQ(process.Rest(0, 60 * kMiB), 100) << "once is enough";
  EXPECT_EQ(process.Rest(0, 65 * kMiB), 1) << "until it has grown again";
}

TEST(RestDetectorTest, ATrickleIsRestAndAShortPauseIsNot) {
  Process process;
  process.Interval(0, kStart);
  for (int i = 0; i < 10; ++i) {
    process.Interval(100 * kMiB, 1000 * kMiB);
    EXPECT_EQ(process.Rest(0, 1000 * kMiB, RestDetector::kIntervals), RestDetector::kIntervals);
  }
  process.Interval(100 * kMiB, 1000 * kMiB);
  EXPECT_EQ(process.Rest(3 * kMiB, 1000 * kMiB), RestDetector::kIntervals) << "a large drop";
}

TEST(RestDetectorTest, WhatIsTheUsualTrafficOfAProcessIsNoRest) {
  Process process;
  process.Interval(0, kStart);
  EXPECT_EQ(process.Rest(kMiB, 100 * kMiB, 1000), 1000);
}

TEST(IdleMemoryTest, ShedsWhatIsKeptAndCountsWhatWasGivenBack) {
  FakeClock clock;
  std::vector<std::string> kept(64 * 1024, std::string(1000, 'x'));
  std::atomic<int> shed{0};
  const uint64_t returned = returned_bytes;
  {
    IdleMemory memory(
        [&] {
          kept.clear();
          ++shed;
        },
        &clock);
    std::vector<std::string> grown;
    while (shed == 0) {
      grown.resize(std::min<size_t>(grown.size() + 1000, 16 * 1024), std::string(1000, 'x'));
      clock.Advance(absl::Seconds(1));
      std::this_thread::yield();
    }
  }
  EXPECT_GE(returned_bytes - returned, 50'000'000u);
}

}  // namespace
}  // namespace expertmesh
