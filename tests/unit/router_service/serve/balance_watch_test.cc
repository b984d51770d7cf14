// What watches of Control are told when central management stops. Nothing else changes meanwhile.
#include "router_service/serve/balance_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "router_service/serve/control_service.h"
#include "tests/support/fake_authority_links.h"
#include "tests/support/fake_checkpoint.h"
#include "tests/support/scripted_nodes.h"

namespace expertmesh::serve {
namespace {

using balance_control::Controller;
using ::testing::HasSubstr;

// Longer than an authority, or the controller's thread, may be silent.
constexpr absl::Duration kSilence = absl::Milliseconds(5001);
constexpr absl::Duration kTick = absl::Seconds(1);

class BalanceWatchTest : public testing::Test {
 protected:
  BalanceWatchTest() {
    mesh::FleetOptions options;
    options.encodings = *mesh::WireEncodings::Parse("auto", "auto", Dtype::kF32);
    options.biases = std::make_shared<const mesh::SelectBiases>();
    fleet_ = std::make_unique<mesh::Fleet>(
        std::make_shared<FakeCheckpoint>(FakeCheckpointOptions()), std::move(options), &metrics_,
        &transport_, &timers_, &clock_);
  }
  ~BalanceWatchTest() override { released_.Notify(); }

  void Start(const std::string& follow) {
    authority_ = std::make_unique<balance_control::FlagAuthority>(follow);
    balance_control::ControllerOptions options;
    options.router_id = "me";
    options.interval = kTick;
    balance_control::SteeredModel model;
    model.outline = "abc";
    controller_ =
        *Controller::Create(std::move(options), std::move(model), [this] { return ReadCounts(); },
                            {authority_.get(), nullptr, nullptr, &links_, fleet_.get(), &clock_});
    // The controller, after its first tick, and the fleet's timers.
    clock_.AwaitWaiters(2);
    router_.fleet = fleet_.get();
    router_.controller = controller_.get();
    router_.clock = &clock_;
    watch_ = std::make_unique<BalanceWatch>(controller_.get(), &clock_);
    AddControlMethods(&router_, watch_.get(), &spec_);
  }
  const net::WatchMethod& Method(const std::string& name) const {
    for (const net::WatchMethod& method : spec_.watches) {
      if (method.name == "/expertmesh.v1.Control/" + name) {
        return method;
      }
    }
    ADD_FAILURE() << name;
    return spec_.watches.front();
  }
  v1::BalanceSummary ReadTopology() const {
    const auto response =
        net::ParseRequest<v1::WatchTopologyResponse>(Method("WatchTopology").read().whole);
    return response->topology().balance();
  }
  v1::BalanceSummary ReadBalance() const {
    const auto response =
        net::ParseRequest<v1::WatchBalanceResponse>(Method("WatchBalance").read().whole);
    return response->balance().summary();
  }

  void Hear(bool heartbeat) {
    internal::v1::Decision decision;
    decision.set_term(3);
    decision.set_epoch(41);
    decision.set_authority_id("boss");
    decision.set_outline("abc");
    decision.set_heartbeat(heartbeat);
    links_.observer().OnDecision(decision);
  }

  // From its next reading on, the controller's thread hangs until the test is over.
  void Hang() {
    absl::MutexLock lock(&mutex_);
    hangs_ = true;
  }
  balance_control::LoadCounts ReadCounts() {
    bool hangs = false;
    {
      absl::MutexLock lock(&mutex_);
      hangs = hangs_;
    }
    if (hangs) {
      released_.WaitForNotification();
    }
    return {};
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  ScriptedNodes transport_;  // No node is spoken of.
  std::unique_ptr<mesh::Fleet> fleet_;
  balance_control::FakeAuthorityLinks links_;
  std::unique_ptr<const balance_control::Authority> authority_;
  absl::Mutex mutex_;
  bool hangs_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Notification released_;
  std::unique_ptr<Controller> controller_;
  ServedRouter router_;
  std::unique_ptr<BalanceWatch> watch_;
  net::GrpcServerSpec spec_;
};

// A watcher: at each time that it is told of a change, it reads whether balancing is alive.
class Told {
 public:
  Told(const net::WatchMethod& method, std::function<v1::BalanceSummary()> read)
      : subscription_(method.subscribe([this, read = std::move(read)] {
          absl::MutexLock lock(&mutex_);
          alive_ = read().alive();
          ++count_;
        })) {}

  void AwaitAlive(bool wanted) {
    const auto is_so = [this, wanted]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return alive_ == wanted; };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&is_so));
  }
  // Until it was told more often than `before`.
  void AwaitMore(int before) {
    const auto more = [this, before]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return count_ > before; };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&more));
  }
  int count() const {
    absl::MutexLock lock(&mutex_);
    return count_;
  }

 private:
  mutable absl::Mutex mutex_;
  bool alive_ ABSL_GUARDED_BY(mutex_) = false;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<void> subscription_;
};

TEST_F(BalanceWatchTest, WatchersOfTheTopologyHearThatAnAuthorityIsSilentAndIsBack) {
  Start("boss:1");
  Told topology(Method("WatchTopology"), [this] { return ReadTopology(); });
  Told balance(Method("WatchBalance"), [this] { return ReadBalance(); });
  Hear(/*heartbeat=*/false);
  topology.AwaitAlive(true);
  for (int second = 0; second < 6; ++second) {
    const int ticks = balance.count();
    clock_.Advance(kTick);
    balance.AwaitMore(ticks);
  }
  topology.AwaitAlive(false);
  EXPECT_THAT(ReadTopology().reason(), HasSubstr("the authority at boss:1 is silent"));
  Hear(/*heartbeat=*/true);
  clock_.Advance(kTick);
  topology.AwaitAlive(true);
}

// Such a controller tells nothing itself.
TEST_F(BalanceWatchTest, AControllerThatHangsIsToldOf) {
  Start("");
  Told topology(Method("WatchTopology"), [this] { return ReadTopology(); });
  Told balance(Method("WatchBalance"), [this] { return ReadBalance(); });
  topology.AwaitAlive(true);
  balance.AwaitAlive(true);
  Hang();
  clock_.Advance(kSilence);
  topology.AwaitAlive(false);
  balance.AwaitAlive(false);
  EXPECT_THAT(ReadBalance().reason(), HasSubstr("load was not looked at"));
}

// Each of them would send a whole topology to each watcher.
TEST_F(BalanceWatchTest, WatchersOfTheTopologyDoNotHearOfTicks) {
  Start("");
  Told topology(Method("WatchTopology"), [this] { return ReadTopology(); });
  Told balance(Method("WatchBalance"), [this] { return ReadBalance(); });
  const int before = topology.count();
  for (int tick = 0; tick < 3; ++tick) {
    const int ticks = balance.count();
    clock_.Advance(kTick);
    balance.AwaitMore(ticks);
  }
  EXPECT_EQ(topology.count(), before);
}

}  // namespace
}  // namespace expertmesh::serve
