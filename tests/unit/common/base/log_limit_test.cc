#include "common/base/log_limit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"

namespace expertmesh {
namespace {

using testing::ElementsAre;

constexpr absl::Duration kInterval = absl::Seconds(1);

TEST(LogLimitTest, LetsOneThroughPerIntervalAndCountsTheOthers) {
  FakeClock clock;
  LogLimit limit(kInterval, &clock);
  EXPECT_EQ(limit.Take(), 0u);
  for (int i = 0; i < 99; ++i) {
    EXPECT_EQ(limit.Take(), std::nullopt);
  }
  clock.Advance(kInterval - absl::Nanoseconds(1));
  EXPECT_EQ(limit.Take(), std::nullopt);
  clock.Advance(absl::Nanoseconds(1));
  EXPECT_EQ(limit.Take(), 100u);
  clock.Advance(10 * kInterval);
  EXPECT_EQ(limit.Take(), 0u);
}

TEST(LogLimitTest, SaysWhatWasLeftOut) {
  EXPECT_EQ(LeftOutText(0), "");
  EXPECT_EQ(LeftOutText(1), " (1 line like it left out)");
  EXPECT_EQ(LeftOutText(17), " (17 lines like it left out)");
}

class LatestLineTest : public testing::Test {
 protected:
  LatestLineTest()
      : line_(std::make_unique<LatestLine>(kInterval, &timers_, &clock_,
                                           [this](const std::string& line) {
                                             absl::MutexLock lock(&mutex_);
                                             lines_.push_back(line);
                                           })) {}

  // Lets the timers' thread write what is due.
  void Advance(absl::Duration by, size_t lines_then) {
    clock_.AwaitWaiters(1);
    clock_.Advance(by);
    absl::MutexLock lock(&mutex_);
    const auto there = [&] { return lines_.size() >= lines_then; };
    mutex_.Await(absl::Condition(&there));
  }

  std::vector<std::string> Lines() {
    absl::MutexLock lock(&mutex_);
    return lines_;
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  absl::Mutex mutex_;
  std::vector<std::string> lines_;
  std::unique_ptr<LatestLine> line_;
};

TEST_F(LatestLineTest, TheFirstIsWrittenAtOnceAndTheLastAtTheEndOfTheInterval) {
  for (int i = 1; i <= 100; ++i) {
    line_->Write(absl::StrCat("epoch ", i));
  }
  EXPECT_THAT(Lines(), ElementsAre("epoch 1"));
  Advance(kInterval, 2);
  EXPECT_THAT(Lines(), ElementsAre("epoch 1", "epoch 100 (98 lines like it left out)"));
}

TEST_F(LatestLineTest, ALineThatWasHeldBackStartsAnIntervalOfItsOwn) {
  line_->Write("a");
  line_->Write("b");
  Advance(kInterval, 2);
  line_->Write("c");
  EXPECT_THAT(Lines(), ElementsAre("a", "b"));
  Advance(kInterval, 3);
  EXPECT_THAT(Lines(), ElementsAre("a", "b", "c"));
}

TEST_F(LatestLineTest, RareLinesAreAllWrittenAtOnce) {
  line_->Write("a");
  clock_.Advance(kInterval);
  line_->Write("b");
  clock_.Advance(kInterval);
  line_->Write("c");
  EXPECT_THAT(Lines(), ElementsAre("a", "b", "c"));
}

TEST_F(LatestLineTest, TheLastIsWrittenBeforeItGoes) {
  line_->Write("a");
  line_->Write("b");
  line_->Write("c");
  line_.reset();
  EXPECT_THAT(Lines(), ElementsAre("a", "c (1 line like it left out)"));
  clock_.Advance(kInterval);
  EXPECT_THAT(Lines(), ElementsAre("a", "c (1 line like it left out)"));
}

}  // namespace
}  // namespace expertmesh
