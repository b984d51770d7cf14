#include "common/net/reconnecting_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "tests/support/too_long.h"

namespace expertmesh::net {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr absl::Duration kTick = absl::Milliseconds(1);
constexpr size_t kFirst = 4;
constexpr size_t kSecond = 9;

class FakeStream final : public ClientStream {
 public:
  explicit FakeStream(StreamCallbacks callbacks) : callbacks_(std::move(callbacks)) {}

  absl::Status Send(Frame) override { return absl::OkStatus(); }
  void CloseSend() override {}
  size_t QueuedBytes() const override { return 0; }
  void PauseReading() override {}
  void ResumeReading() override {}
  void Cancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }

  // What the peer does.
  void Accept() { callbacks_.on_open(); }
  void Answer(const std::string& text) { callbacks_.on_frame(Frame(text)); }
  void End(const absl::Status& status) { callbacks_.on_closed(status); }

  bool cancelled() const {
    absl::MutexLock lock(&mutex_);
    return cancelled_;
  }

 private:
  const StreamCallbacks callbacks_;
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

struct FakeAttempt {
  std::shared_ptr<FakeStream> first;
  std::shared_ptr<FakeStream> second;
};

class ReconnectingStreamsTest : public testing::Test, public ReconnectingStreamsUser {
 protected:
  ~ReconnectingStreamsTest() override { streams_->Close(); }

  void Start(std::function<absl::Time()> awake_since = nullptr) {
    ReconnectOptions options;
    options.backoff_initial = absl::Milliseconds(100);
    options.backoff_max = absl::Milliseconds(300);
    options.silence_timeout = absl::Seconds(3);
    options.awake_since = std::move(awake_since);
    streams_ = std::make_shared<ReconnectingStreams>(&clock_, &timers_, options, this);
    streams_->Start();
    Advance(absl::ZeroDuration());
  }

  // All that is due by then has been done when it returns.
  void Advance(absl::Duration by) {
    clock_.Advance(by);
    absl::Notification passed;
    timers_.Schedule(clock_.Now(), [&passed] { passed.Notify(); });
    ASSERT_TRUE(passed.WaitForNotificationWithTimeout(kTooLong));
  }

  std::vector<FakeAttempt> attempts() const {
    absl::MutexLock lock(&mutex_);
    return attempts_;
  }
  // What was heard since the last time.
  std::vector<std::string> TakeHeard() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(heard_, {});
  }

  bool OpenStreams() override {
    const auto open = [this](size_t number, const char* name) {
      std::shared_ptr<FakeStream> made;
      const auto returned = streams_->Open(number, name, [&made](StreamCallbacks callbacks) {
        made = std::make_shared<FakeStream>(std::move(callbacks));
        return made;
      });
      EXPECT_EQ(returned, made);
      return made;
    };
    FakeAttempt attempt = {open(kFirst, "First"), open(kSecond, "Second")};
    absl::MutexLock lock(&mutex_);
    attempts_.push_back(std::move(attempt));
    return can_open_;
  }
  void OnOpen(size_t stream) override { Hear(absl::StrCat(stream, " is open")); }
  void OnFrame(size_t stream, Frame frame) override {
    const std::string text = frame.Flatten();
    Hear(absl::StrCat(stream, " says ", text));
    if (text == "nonsense") {
      streams_->Fail(absl::InternalError("that is nonsense"));
    } else if (text == "success") {
      streams_->ResetBackoff();
    }
  }
  void OnDisconnected(const absl::Status& why) override { Hear(why.ToString()); }

  void Hear(std::string what) {
    absl::MutexLock lock(&mutex_);
    heard_.push_back(std::move(what));
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  std::shared_ptr<ReconnectingStreams> streams_;
  mutable absl::Mutex mutex_;
  std::vector<FakeAttempt> attempts_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> heard_ ABSL_GUARDED_BY(mutex_);
  bool can_open_ = true;  // Before Start().
};

TEST_F(ReconnectingStreamsTest, TheUserHearsItsStreams) {
  Start();
  ASSERT_EQ(attempts().size(), 1u);
  const FakeAttempt attempt = attempts()[0];
  attempt.second->Accept();
  attempt.first->Answer("one");
  attempt.second->Answer("two");
  EXPECT_THAT(TakeHeard(), ElementsAre("9 is open", "4 says one", "9 says two"));
}

TEST_F(ReconnectingStreamsTest, WhenOneEndsAllAreCancelledAndOpenedAgainAfterAPause) {
  Start();
  attempts()[0].second->End(absl::PermissionDeniedError("go away"));
  EXPECT_THAT(TakeHeard(), ElementsAre("PERMISSION_DENIED: go away"));
  EXPECT_TRUE(attempts()[0].first->cancelled());
  Advance(absl::Milliseconds(100) - kTick);
  EXPECT_EQ(attempts().size(), 1u);
  Advance(kTick);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_FALSE(attempts()[1].first->cancelled());
  EXPECT_FALSE(attempts()[1].second->cancelled());
}

TEST_F(ReconnectingStreamsTest, PausesGrowToTheMaximumUntilASuccess) {
  Start();
  size_t made = 1;
  for (const int millis : {100, 200, 300, 300}) {
    attempts().back().first->End(absl::UnavailableError("no"));
    Advance(absl::Milliseconds(millis) - kTick);
    ASSERT_EQ(attempts().size(), made) << millis;
    Advance(kTick);
    ASSERT_EQ(attempts().size(), ++made) << millis;
  }
  attempts().back().first->Answer("success");
  attempts().back().first->End(absl::UnavailableError("no"));
  Advance(absl::Milliseconds(100));
  EXPECT_EQ(attempts().size(), made + 1);
}

TEST_F(ReconnectingStreamsTest, WhatComesOfAFormerAttemptIsIgnored) {
  Start();
  const FakeAttempt former = attempts()[0];
  former.first->End(absl::UnavailableError("no"));
  TakeHeard();
  const auto speak = [&former] {
    former.second->Accept();
    former.second->Answer("late");
    former.second->Answer("nonsense");
    former.second->End(absl::UnavailableError("late"));
  };
  speak();  // During the pause.
  Advance(absl::Milliseconds(100));
  ASSERT_EQ(attempts().size(), 2u);
  speak();
  EXPECT_THAT(TakeHeard(), IsEmpty());
  EXPECT_FALSE(attempts()[1].first->cancelled());
  // Nor do they break its silence.
  Advance(absl::Seconds(3) - kTick);
  former.second->Answer("late");
  Advance(kTick);
  EXPECT_THAT(TakeHeard(), ElementsAre("UNAVAILABLE: nothing heard for 3s"));
}

TEST_F(ReconnectingStreamsTest, AnEndWithoutAReasonGetsOne) {
  Start();
  attempts()[0].first->End(absl::OkStatus());
  Advance(absl::Milliseconds(100));
  attempts()[1].second->End(absl::CancelledError("CANCELLED"));
  EXPECT_THAT(TakeHeard(),
              ElementsAre("UNAVAILABLE: it ended First", "UNAVAILABLE: it ended Second"));
}

TEST_F(ReconnectingStreamsTest, TheUserMayEndAnAttempt) {
  Start();
  attempts()[0].first->Answer("nonsense");
  EXPECT_THAT(TakeHeard(), ElementsAre("4 says nonsense", "INTERNAL: that is nonsense"));
  EXPECT_TRUE(attempts()[0].first->cancelled());
  EXPECT_TRUE(attempts()[0].second->cancelled());
  Advance(absl::Milliseconds(100));
  EXPECT_EQ(attempts().size(), 2u);
}

TEST_F(ReconnectingStreamsTest, EveryFrameBreaksTheSilenceThatEndsAnAttempt) {
  Start();
  Advance(absl::Seconds(2));
  attempts()[0].first->Answer("a");
  Advance(absl::Seconds(2));
  attempts()[0].second->Answer("b");
  Advance(absl::Seconds(3) - kTick);
  EXPECT_THAT(TakeHeard(), ElementsAre("4 says a", "9 says b"));
  Advance(kTick);
  EXPECT_THAT(TakeHeard(), ElementsAre("UNAVAILABLE: nothing heard for 3s"));
  EXPECT_TRUE(attempts()[0].first->cancelled());
  EXPECT_TRUE(attempts()[0].second->cancelled());
}

TEST_F(ReconnectingStreamsTest, PausesOfThisProcessAreNoSilence) {
  const absl::Time start = clock_.Now();
  // Asleep for the first 10 seconds, and seen to be so.
  Start([this, start] { return std::min(clock_.Now(), start + absl::Seconds(10)); });
  for (int second = 0; second < 12; ++second) {
    Advance(absl::Seconds(1));
  }
  EXPECT_THAT(TakeHeard(), IsEmpty());
  Advance(absl::Seconds(1));
  EXPECT_THAT(TakeHeard(), ElementsAre("UNAVAILABLE: nothing heard for 13s"));
}

TEST_F(ReconnectingStreamsTest, PausesThatComeAgainAndAgainAreNoExcuseForEver) {
  Start([this] { return clock_.Now() - absl::Seconds(1); });
  // Looked at after 3 seconds, and then every 2, as one of 3 has been heard.
  Advance(absl::Seconds(3));
  for (int excuse = 1; excuse < 5; ++excuse) {
    Advance(absl::Seconds(2));
  }
  EXPECT_THAT(TakeHeard(), IsEmpty());
  attempts()[0].first->Answer("a");  // All excuses count again.
  Advance(absl::Seconds(2));
  for (int excuse = 1; excuse <= 5; ++excuse) {
    Advance(absl::Seconds(2));
  }
  EXPECT_THAT(TakeHeard(), ElementsAre("4 says a"));
  Advance(absl::Seconds(2));
  EXPECT_THAT(TakeHeard(), ElementsAre("UNAVAILABLE: nothing heard for 14s"));
}

TEST_F(ReconnectingStreamsTest, AUserThatCannotOpenIsNotAskedAgain) {
  can_open_ = false;
  Start();
  EXPECT_EQ(attempts().size(), 1u);
  Advance(absl::Hours(1));
  EXPECT_EQ(attempts().size(), 1u);
  EXPECT_THAT(TakeHeard(), IsEmpty());
}

TEST_F(ReconnectingStreamsTest, NothingIsHeardAfterClose) {
  Start();
  const FakeAttempt attempt = attempts()[0];
  streams_->Run([this] { Hear("in between"); });
  EXPECT_THAT(TakeHeard(), ElementsAre("in between"));
  streams_->Close();
  EXPECT_TRUE(attempt.first->cancelled());
  EXPECT_TRUE(attempt.second->cancelled());
  attempt.first->Answer("late");
  attempt.first->End(absl::CancelledError(""));
  streams_->Run([this] { Hear("late"); });
  Advance(absl::Hours(1));
  EXPECT_THAT(TakeHeard(), IsEmpty());
  EXPECT_EQ(attempts().size(), 1u);
}

TEST_F(ReconnectingStreamsTest, CloseEndsThePauseBetweenAttempts) {
  Start();
  attempts()[0].first->End(absl::UnavailableError("no"));
  streams_->Close();
  Advance(absl::Hours(1));
  EXPECT_EQ(attempts().size(), 1u);
}

}  // namespace
}  // namespace expertmesh::net
