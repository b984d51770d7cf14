// WatchHub against streams whose clients read when a test says so.
#include "common/net/watch_hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "tests/support/too_long.h"

namespace expertmesh::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr absl::Duration kHeartbeat = absl::Seconds(1);
constexpr char kPeer[] = "ipv4:10.0.0.1:1000";

// What one client has been sent. Does not read until told, but for the frame that is on its way.
class FakeClient final : public ServerStreamSink {
 public:
  explicit FakeClient(bool reads) : reads_(reads) {}

  absl::Status Send(Frame) override { return absl::UnimplementedError("not for watches"); }
  bool IsGone() const override { return IsEnding(); }
  bool IsEnding() const override {
    absl::MutexLock lock(&mutex_);
    return !end_.ok();
  }
  void SendLatest(LatestFrame make) override {
    {
      absl::MutexLock lock(&mutex_);
      if (!reads_ && !frames_.empty()) {
        if (latest_ == nullptr) {
          latest_ = std::move(make);
        }
        return;
      }
    }
    Add(make());
  }
  void OnEnding(EndingCallback callback) override {
    absl::MutexLock lock(&mutex_);
    on_ending_ = std::move(callback);
  }
  void Fail(const absl::Status& why) override {
    EndingCallback callback;
    {
      absl::MutexLock lock(&mutex_);
      callback = std::exchange(on_ending_, nullptr);
    }
    if (callback != nullptr) {
      callback();
    }
    absl::MutexLock lock(&mutex_);
    end_ = why;
  }

  // Reads all from now on.
  void Read() {
    LatestFrame make;
    {
      absl::MutexLock lock(&mutex_);
      reads_ = true;
      make = std::exchange(latest_, nullptr);
    }
    if (make != nullptr) {
      Add(make());
    }
  }
  std::vector<std::string> AwaitFrames(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return frames_.size() >= count;
    };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&there), kTooLong));
    return frames_;
  }
  absl::Status AwaitEnd() {
    absl::MutexLock lock(&mutex_);
    const auto ended = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !end_.ok(); };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&ended), kTooLong));
    return end_;
  }

 private:
  void Add(const Frame& frame) {
    absl::MutexLock lock(&mutex_);
    frames_.push_back(frame.Flatten());
  }

  mutable absl::Mutex mutex_;
  bool reads_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> frames_ ABSL_GUARDED_BY(mutex_);
  LatestFrame latest_ ABSL_GUARDED_BY(mutex_);
  EndingCallback on_ending_ ABSL_GUARDED_BY(mutex_);
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

class WatchHubTest : public testing::Test {
 protected:
  WatchHubTest() { Start(/*most_watchers=*/100); }

  void Start(size_t most_watchers) {
    hub_ = std::make_unique<WatchHub>(&method_, most_watchers, /*max_message_bytes=*/1000, &clock_);
  }

  std::shared_ptr<FakeClient> Open(bool reads = true, const std::string& peer = kPeer) {
    auto client = std::make_shared<FakeClient>(reads);
    CallContext::Caller caller;
    caller.peer = peer;
    hub_->Method()
        .factory(client, std::make_shared<CallContext>(std::move(caller)))
        ->OnFrame(Frame("request"));
    return client;
  }

  WatchedState Read() {
    absl::MutexLock lock(&mutex_);
    ++reads_;
    return {.version = version_,
            .whole = Frame(absl::StrCat("whole ", version_, padding_)),
            .brief = Frame(absl::StrCat("brief ", version_))};
  }
  void Change(std::string padding = "") {
    std::function<void()> on_change;
    {
      absl::MutexLock lock(&mutex_);
      ++version_;
      padding_ = std::move(padding);
      on_change = on_change_;
    }
    on_change();
  }
  int reads() {
    absl::MutexLock lock(&mutex_);
    return reads_;
  }
  std::shared_ptr<void> Subscribe(std::function<void()> on_change) {
    absl::MutexLock lock(&mutex_);
    on_change_ = std::move(on_change);
    return nullptr;
  }

  FakeClock clock_;
  absl::Mutex mutex_;
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 1;
  std::string padding_ ABSL_GUARDED_BY(mutex_);
  int reads_ ABSL_GUARDED_BY(mutex_) = 0;
  std::function<void()> on_change_ ABSL_GUARDED_BY(mutex_);
  const WatchMethod method_{
      .name = "/test/Watch",
      .heartbeat = [](const Frame& request) -> absl::StatusOr<absl::Duration> {
        if (request.Flatten() != "request") {
          return absl::InvalidArgumentError("no request");
        }
        return kHeartbeat;
      },
      .read = [this] { return Read(); },
      .subscribe = [this](std::function<void()> call) { return Subscribe(std::move(call)); },
      .fresh = absl::Milliseconds(10)};
  std::unique_ptr<WatchHub> hub_;
};

TEST_F(WatchHubTest, TellsTheStateAtOnceAfterChangesAndAtHeartbeats) {
  const auto client = Open();
  client->AwaitFrames(1);
  Change();
  client->AwaitFrames(2);
  clock_.AwaitWaiters(1);
  clock_.Advance(kHeartbeat);
  client->AwaitFrames(3);
  clock_.AwaitWaiters(1);
  clock_.Advance(kHeartbeat);
  EXPECT_THAT(client->AwaitFrames(4), ElementsAre("whole 1", "whole 2", "brief 2", "brief 2"));
}

TEST_F(WatchHubTest, AHeartbeatIsCountedFromTheLastAnswer) {
  const auto client = Open();
  client->AwaitFrames(1);
  clock_.Advance(kHeartbeat / 2);
  Change();
  client->AwaitFrames(2);
  clock_.Advance(kHeartbeat / 2);
  Change();  // What comes next is this, not a heartbeat.
  EXPECT_THAT(client->AwaitFrames(3), ElementsAre("whole 1", "whole 2", "whole 3"));
}

TEST_F(WatchHubTest, OneWhoDoesNotReadGetsTheNewestAndNothingInBetween) {
  const auto slow = Open(/*reads=*/false);
  slow->AwaitFrames(1);
  const auto other = Open();
  other->AwaitFrames(1);
  for (size_t i = 0; i < 100; ++i) {
    Change();
    other->AwaitFrames(i + 2);
  }
  EXPECT_THAT(slow->AwaitFrames(1), ElementsAre("whole 1"));
  slow->Read();
  EXPECT_THAT(slow->AwaitFrames(2), ElementsAre("whole 1", "whole 101"));
}

TEST_F(WatchHubTest, WatchersShareWhatIsRead) {
  std::vector<std::shared_ptr<FakeClient>> clients;
  for (int i = 0; i < 50; ++i) {
    clients.push_back(Open());
  }
  for (const auto& client : clients) {
    client->AwaitFrames(1);
  }
  EXPECT_EQ(reads(), 1);  // The clock stands still.
  Change();
  for (const auto& client : clients) {
    client->AwaitFrames(2);
  }
  EXPECT_EQ(reads(), 2);
  clock_.AwaitWaiters(1);
  clock_.Advance(kHeartbeat);
  for (const auto& client : clients) {
    client->AwaitFrames(3);
  }
  EXPECT_EQ(reads(), 3);
}

TEST_F(WatchHubTest, OneWhoHasGoneIsForgottenAtOnce) {
  const auto client = Open();
  client->AwaitFrames(1);
  EXPECT_EQ(hub_->watchers(), 1u);
  client->Fail(absl::CancelledError("gone"));
  EXPECT_EQ(hub_->watchers(), 0u);
}

TEST_F(WatchHubTest, ARequestThatMakesNoSenseIsRefused) {
  auto client = std::make_shared<FakeClient>(true);
  const auto context = std::make_shared<CallContext>(CallContext::Caller{});
  const auto handler = hub_->Method().factory(client, context);
  handler->OnFrame(Frame("nonsense"));
  handler->OnFrame(Frame("request"));  // One request only.
  EXPECT_EQ(client->AwaitEnd().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(hub_->watchers(), 0u);
}

TEST_F(WatchHubTest, AnotherPeerGetsThroughThoughOneHasAllPlaces) {
  Start(/*most_watchers=*/2);
  const auto first = Open();
  const auto second = Open();
  const absl::Status refused = Open()->AwaitEnd();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("2 watches are open already"));
  const auto router = Open(true, "ipv4:10.0.0.2:1000");
  router->AwaitFrames(1);
  EXPECT_EQ(second->AwaitEnd().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(first->IsEnding());
  EXPECT_EQ(hub_->watchers(), 2u);
}

TEST_F(WatchHubTest, AStateThatIsTooLargeEndsWatches) {
  const auto client = Open();
  client->AwaitFrames(1);
  Change(std::string(2000, 'x'));
  const absl::Status end = client->AwaitEnd();
  EXPECT_EQ(end.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(end.message()), HasSubstr("the limit is 1000"));
  EXPECT_EQ(hub_->watchers(), 0u);
  Change();
  EXPECT_EQ(Open()->AwaitFrames(1).front(), "whole 3");
}

TEST_F(WatchHubTest, NothingIsReadOnceStopped) {
  const auto slow = Open(/*reads=*/false);
  slow->AwaitFrames(1);
  Change();
  Open()->AwaitFrames(1);
  hub_->Stop();
  const int before = reads();
  Change();
  slow->Read();  // What it was promised.
  EXPECT_THAT(slow->AwaitFrames(2), ElementsAre("whole 1", "whole 2"));
  EXPECT_EQ(reads(), before);
  EXPECT_EQ(hub_->watchers(), 0u);
}

}  // namespace
}  // namespace expertmesh::net
