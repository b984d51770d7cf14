#include "common/net/blocking_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/base/clock.h"

namespace expertmesh::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kGreedy[] = "ipv4:10.0.0.1:1000";
constexpr char kOther[] = "ipv4:10.0.0.2:1000";

// One thread, which a test keeps busy until it lets go, and three places.
class BlockingCallsTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::Notification running;
    calls_.Run(kGreedy, [&](const absl::Status& go) {
      EXPECT_TRUE(go.ok());
      running.Notify();
      go_on_.WaitForNotification();
    });
    running.WaitForNotification();
  }
  ~BlockingCallsTest() override {
    if (!go_on_.HasBeenNotified()) {
      go_on_.Notify();
    }
  }

  void Run(const std::string& peer, const std::string& name) {
    calls_.Run(peer, [this, name](const absl::Status& go) {
      absl::MutexLock lock(&mutex_);
      (go.ok() ? done_ : refused_).push_back(name);
      last_ = go.ok() ? last_ : go;
    });
  }
  std::vector<std::string> Done() {
    absl::MutexLock lock(&mutex_);
    return done_;
  }
  std::vector<std::string> Refused() {
    absl::MutexLock lock(&mutex_);
    return refused_;
  }
  // Waits for all that has a place.
  void Finish() {
    go_on_.Notify();
    absl::Notification last;
    calls_.Run(kOther, [&](const absl::Status&) { last.Notify(); });
    last.WaitForNotification();
  }

  absl::Notification go_on_;
  absl::Mutex mutex_;
  std::vector<std::string> done_;
  std::vector<std::string> refused_;
  absl::Status last_;
  FakeClock clock_;
  BlockingCalls calls_{1, 3, &clock_};
};

TEST_F(BlockingCallsTest, RunInOrderOfArrival) {
  Run(kGreedy, "a");
  Run(kOther, "b");
  Finish();
  EXPECT_THAT(Done(), ElementsAre("a", "b"));
  EXPECT_THAT(Refused(), ElementsAre());
}

TEST_F(BlockingCallsTest, OneWithoutAPlaceIsRefusedAtOnce) {
  Run(kGreedy, "a");
  Run(kGreedy, "b");
  Run(kGreedy, "c");
  Run(kGreedy, "d");
  EXPECT_THAT(Refused(), ElementsAre("d"));
  EXPECT_EQ(last_.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(last_.message()), HasSubstr("3 calls of methods that block wait"));
  EXPECT_THAT(Done(), ElementsAre());
}

TEST_F(BlockingCallsTest, AnotherPeersCallTakesAPlace) {
  Run(kGreedy, "a");
  Run(kGreedy, "b");
  Run(kGreedy, "c");
  Run(kOther, "of another");
  EXPECT_THAT(Refused(), ElementsAre("c"));
  go_on_.Notify();
  calls_.Stop(absl::OkStatus());
}

TEST_F(BlockingCallsTest, StopWaitsForWhatRunsAndTellsTheOthers) {
  Run(kGreedy, "a");
  absl::Notification stopped;
  std::thread stopping([&] {
    calls_.Stop(absl::UnavailableError("stopping"));
    stopped.Notify();
  });
  while (Refused().empty()) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(stopped.HasBeenNotified());
  EXPECT_EQ(last_.message(), "stopping");
  Run(kOther, "later");
  EXPECT_THAT(Refused(), ElementsAre("a", "later"));
  go_on_.Notify();
  stopping.join();
  EXPECT_THAT(Done(), ElementsAre());
}

}  // namespace
}  // namespace expertmesh::net
