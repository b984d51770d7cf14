#include "expert_service/hosted_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/checkpoint/expert_digest.h"
#include "common/model/expert_slice.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Publish = HostedExperts::Publish;

// Packed bytes of one whole fake expert.
constexpr uint64_t kExpertBytes = 3 * kDModel * kIntermediate * sizeof(float);

class HostedExpertsTest : public testing::Test {
 protected:
  HostedExperts& Make(uint64_t limit = 0, int threads = 2) {
    hosted_ = std::make_unique<HostedExperts>(
        checkpoint_, &backend_, HostedExpertsOptions{limit, threads}, [this] { ++changes_; });
    return *hosted_;
  }

  std::shared_ptr<FakeCheckpoint> checkpoint_ = MakeCheckpoint();
  FakeBackend backend_;
  std::atomic<int> changes_{0};
  std::unique_ptr<HostedExperts> hosted_;
};

TEST_F(HostedExpertsTest, LoadsDescribesAndAccounts) {
  HostedExperts& hosted = Make();
  EXPECT_EQ(hosted.FindLayer(1), nullptr);
  std::vector<std::pair<uint64_t, uint64_t>> progress;
  absl::StatusOr<uint64_t> loaded = hosted.Load(
      {{{4, {7, 9}, {}}, {1, {0, 1, 2}, {1, 2}}}}, Publish::kTogether,
      [&progress](uint64_t done, uint64_t total) { progress.emplace_back(done, total); });
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(*loaded, 5u);
  EXPECT_EQ(progress.size(), 5u);
  EXPECT_EQ(progress.back(), (std::pair<uint64_t, uint64_t>(5, 5)));
  EXPECT_EQ(changes_, 1);
  EXPECT_EQ(hosted.memory().held_bytes(), 2 * kExpertBytes + 3 * kExpertBytes / 2);
  EXPECT_EQ(hosted.memory().used_bytes(), hosted.memory().held_bytes());
  const std::vector<v1::HostedExperts> described = hosted.Describe();
  ASSERT_EQ(described.size(), 2u);
  EXPECT_EQ(described[0].layer(), 1u);
  EXPECT_THAT(described[0].experts(), ElementsAre(0, 1, 2));
  EXPECT_EQ(described[0].slice_index(), 1u);
  EXPECT_EQ(described[0].slice_count(), 2u);
  EXPECT_THAT(described[1].experts(), ElementsAre(7, 9));
  EXPECT_EQ(described[1].slice_count(), 1u);
  // Digests are given for what is held, and no more.
  const auto digest = [this](uint32_t at, uint32_t expert, IntermediateSlice slice) {
    return checkpoint::DigestOf(SliceOf(*checkpoint_->Expert(at, expert), slice));
  };
  EXPECT_THAT(described[0].digests(),
              ElementsAre(digest(1, 0, {1, 2}), digest(1, 1, {1, 2}), digest(1, 2, {1, 2})));
  EXPECT_THAT(described[1].digests(), ElementsAre(digest(4, 7, {}), digest(4, 9, {})));
  const std::shared_ptr<const HostedLayer> layer = hosted.FindLayer(4);
  ASSERT_NE(layer, nullptr);
  EXPECT_EQ(layer->description->layer, 4u);
  EXPECT_NE(layer->experts[7], nullptr);
  EXPECT_EQ(layer->experts[8], nullptr);
}

// A backend that holds less than the checkpoint has: the limit and what is held follow the backend.
TEST_F(HostedExpertsTest, AccountsForWhatIsHeldAndForTheCheckpoint) {
  FakeBackend half(Dtype::kBF16);
  HostedExperts hosted(checkpoint_, &half, HostedExpertsOptions{kExpertBytes, 1}, [] {});
  ASSERT_TRUE(hosted.Load({{{1, {0}, {}}}}, Publish::kTogether).ok());
  EXPECT_EQ(hosted.memory().held_bytes(), kExpertBytes / 2);
  EXPECT_EQ(hosted.memory().checkpoint_bytes(), kExpertBytes);
  EXPECT_FALSE(hosted.CheckLoad({{{1, {1, 2}, {}}}}).ok());
  ASSERT_TRUE(hosted.Load({{{4, {1, 2}, {1, 2}}}}, Publish::kTogether).ok());
  EXPECT_EQ(hosted.memory().held_bytes(), kExpertBytes);
  EXPECT_EQ(hosted.memory().checkpoint_bytes(), 2 * kExpertBytes);
  ASSERT_TRUE(hosted.Unload({{{4, {1}, {}}}}).ok());
  EXPECT_EQ(hosted.memory().held_bytes(), 3 * kExpertBytes / 4);
  EXPECT_EQ(hosted.memory().checkpoint_bytes(), 3 * kExpertBytes / 2);
}

TEST_F(HostedExpertsTest, WhatIsHeldIsLeftAlone) {
  HostedExperts& hosted = Make();
  ASSERT_TRUE(hosted.Load({{{1, {0, 1}, {}}}}, Publish::kTogether).ok());
  const std::shared_ptr<const HostedExpert> before = hosted.FindLayer(1)->experts[1];
  EXPECT_EQ(*hosted.Load({{{1, {1, 2}, {}}, {1, {2, 3}, {}}}}, Publish::kTogether), 2u);
  EXPECT_EQ(hosted.FindLayer(1)->experts[1], before);
  EXPECT_EQ(backend_.packed(), 4);
  const absl::Status other = hosted.Load({{{1, {1}, {0, 2}}}}, Publish::kTogether).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.message()), HasSubstr("layer 1 expert 1 is held as slice 0 of 1"));
}

TEST_F(HostedExpertsTest, TheLimitIsCheckedBeforeAnythingIsPacked) {
  HostedExperts& hosted = Make(3 * kExpertBytes + 1);
  const LayerExperts four{1, {0, 1, 2, 3}, {}};
  EXPECT_EQ(hosted.CheckLoad({four}).code(), absl::StatusCode::kResourceExhausted);
  const absl::Status status = hosted.Load({four}, Publish::kPerLayer).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--memory-limit-bytes"));
  EXPECT_EQ(backend_.packed(), 0);
  EXPECT_EQ(hosted.memory().used_bytes(), 0u);
  // Exactly up to the limit, also after some was given back.
  EXPECT_TRUE(hosted.Load({{{1, {0, 1, 2}, {}}}}, Publish::kTogether).ok());
  EXPECT_FALSE(hosted.Load({{{1, {3}, {}}}}, Publish::kTogether).ok());
  EXPECT_EQ(*hosted.Unload({{{1, {0}, {}}}}), 1u);
  EXPECT_TRUE(hosted.Load({{{1, {3}, {}}}}, Publish::kTogether).ok());
}

TEST_F(HostedExpertsTest, AFailedLoadLeavesNothingBehind) {
  checkpoint_->BreakLayer(2);
  HostedExperts& hosted = Make();
  const std::vector<LayerExperts> request = {{1, {0}, {}}, {2, {5}, {}}, {4, {1}, {}}};
  const absl::Status status = hosted.Load(request, Publish::kTogether).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layer 2 expert 5"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("truncated"));
  EXPECT_TRUE(hosted.Describe().empty());
  EXPECT_EQ(backend_.alive(), 0);
  EXPECT_EQ(hosted.memory().used_bytes(), 0u);
  // Layer by layer, what came before the failure serves.
  EXPECT_FALSE(hosted.Load(request, Publish::kPerLayer).ok());
  EXPECT_NE(hosted.FindLayer(1), nullptr);
  EXPECT_EQ(hosted.FindLayer(4), nullptr);
  EXPECT_EQ(hosted.memory().used_bytes(), kExpertBytes);
}

TEST_F(HostedExpertsTest, WeightsOfAFileThatChangedAreNotHeld) {
  HostedExperts& hosted = Make();
  ASSERT_TRUE(hosted.Load({{{1, {0}, {}}}}, Publish::kTogether).ok());
  checkpoint_->ShortenFiles();
  const absl::Status status = hosted.Load({{{1, {1, 2}, {}}}}, Publish::kTogether).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("shortened"));
  EXPECT_EQ(backend_.alive(), 1);
  EXPECT_EQ(hosted.memory().used_bytes(), kExpertBytes);
  EXPECT_NE(hosted.FindLayer(1)->experts[0], nullptr);
}

TEST_F(HostedExpertsTest, ImpossibleRequestsAreRefused) {
  HostedExperts& hosted = Make();
  const auto code = [&hosted](const std::vector<LayerExperts>& request) {
    return hosted.Load(request, Publish::kTogether).status().code();
  };
  EXPECT_EQ(code({{3, {0}, {}}}), absl::StatusCode::kNotFound);
  EXPECT_EQ(code({{1, {kNumExperts}, {}}}), absl::StatusCode::kNotFound);
  EXPECT_EQ(code({{1, {0}, {0, 3}}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{1, {0}, {2, 2}}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{1, {0}, {0, 0}}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{1, {0}, {0, 2}}, {1, {0}, {1, 2}}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(hosted.Unload({{{3, {0}, {}}}}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(backend_.packed(), 0);
}

TEST_F(HostedExpertsTest, SharedExpertsAreHeldLikeOthersInTheirOwnWidth) {
  constexpr uint32_t kWidth = 12;
  constexpr uint64_t kSharedBytes = 3 * kDModel * kWidth * sizeof(float);
  checkpoint_ = MakeCheckpointWithShared(kWidth);
  HostedExperts& hosted = Make(kExpertBytes + kSharedBytes);
  const auto load = [&hosted](const LayerExperts& wanted) {
    return hosted.Load({wanted}, Publish::kTogether);
  };
  EXPECT_EQ(load({1, {kNumExperts + 1}, {}}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(load({1, {kNumExperts}, {0, 8}}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(load({1, {0, 1, kNumExperts}, {}}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(backend_.packed(), 0);
  ASSERT_EQ(*load({1, {kNumExperts}, {}}), 1u);
  EXPECT_EQ(backend_.packed_as(), checkpoint_->model().layers[0].shared_expert());
  EXPECT_EQ(backend_.packed_as().intermediate_size, kWidth);
  EXPECT_EQ(hosted.memory().held_bytes(), kSharedBytes);
  ASSERT_EQ(*load({1, {3, kNumExperts}, {}}), 1u);
  EXPECT_EQ(hosted.memory().held_bytes(), kExpertBytes + kSharedBytes);
  EXPECT_EQ(hosted.memory().checkpoint_bytes(), kExpertBytes + kSharedBytes);
  const std::vector<v1::HostedExperts> described = hosted.Describe();
  ASSERT_EQ(described.size(), 1u);
  EXPECT_THAT(described[0].experts(), ElementsAre(3, kNumExperts));
  EXPECT_THAT(described[0].digests(), ElementsAre(checkpoint::DigestOf(*checkpoint_->Expert(1, 3)),
                                                  checkpoint::DigestOf(*checkpoint_->Shared(1))));
  EXPECT_EQ(*hosted.Unload({{{1, {kNumExperts}, {}}}}), 1u);
  EXPECT_EQ(hosted.memory().held_bytes(), kExpertBytes);
}

TEST_F(HostedExpertsTest, UnloadWaitsForWhoeverUsesTheExperts) {
  HostedExperts& hosted = Make();
  ASSERT_TRUE(hosted.Load({{{1, {0, 1}, {}}, {2, {0}, {}}}}, Publish::kTogether).ok());
  std::shared_ptr<const HostedLayer> in_use = hosted.FindLayer(1);
  std::atomic<bool> unloaded{false};
  std::thread unloading([&] {
    const absl::StatusOr<uint64_t> count = hosted.Unload({{{1, {0, 5}, {}}, {2, {0}, {}}}});
    EXPECT_EQ(*count, 2u);
    unloaded = true;
  });
  // No longer offered soon; only then is it known that the thread waits for us.
  while (hosted.FindLayer(1)->experts[0] != nullptr) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(unloaded);
  EXPECT_EQ(hosted.FindLayer(2), nullptr);
  EXPECT_NE(in_use->experts[0]->packed(), nullptr);
  // Others may load meanwhile, even the same expert.
  EXPECT_EQ(*hosted.Load({{{1, {0}, {}}}}, Publish::kTogether), 1u);
  EXPECT_FALSE(unloaded);
  in_use.reset();
  unloading.join();
  EXPECT_TRUE(unloaded);
  EXPECT_EQ(backend_.alive(), 2);
  EXPECT_EQ(hosted.memory().held_bytes(), 2 * kExpertBytes);
  EXPECT_EQ(*hosted.Unload({{{1, {7}, {}}}}), 0u);
}

TEST_F(HostedExpertsTest, StopEndsALoad) {
  HostedExperts& hosted = Make(0, 1);
  absl::Notification packing;
  absl::Notification go_on;
  backend_.OnPack([&] {
    if (!packing.HasBeenNotified()) {
      packing.Notify();
    }
    go_on.WaitForNotification();
  });
  absl::Status status;
  std::thread loading([&] {
    status = hosted.Load({{{1, {0, 1, 2}, {}}}}, Publish::kTogether).status();
  });
  packing.WaitForNotification();
  hosted.Stop();
  go_on.Notify();
  loading.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(backend_.packed(), 1);
  EXPECT_EQ(hosted.memory().used_bytes(), 0u);
}

TEST_F(HostedExpertsTest, LoadsInParallel) {
  HostedExperts& hosted = Make(0, 4);
  // No thread goes on before four of them are packing.
  absl::Mutex mutex;
  int packing = 0;
  backend_.OnPack([&] {
    absl::MutexLock lock(&mutex);
    ++packing;
    const auto all = [&packing] { return packing >= 4; };
    mutex.Await(absl::Condition(&all));
  });
  EXPECT_EQ(*hosted.Load({{{1, {0, 1, 2, 3, 4, 5}, {}}}}, Publish::kPerLayer), 6u);
}

// On which waits take no time of the machine.
class JumpingClock final : public Clock {
 public:
  absl::Time Now() const override { return now_; }
  bool WaitUntil(absl::Mutex*, absl::CondVar*, absl::Time deadline) override {
    waits_.push_back(deadline - now_);
    now_ = deadline;
    return true;
  }
  void Pass(absl::Duration time) { now_ += time; }
  std::vector<absl::Duration> TakeWaits() { return std::exchange(waits_, {}); }

 private:
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  std::vector<absl::Duration> waits_;
};

// A node with `threads` threads, on which each expert takes 10 ms of CPU time, and `waits` until
// its thread gets that.
template <typename TestClock>
class GentleLoad {
 public:
  explicit GentleLoad(
      int threads, const std::function<void(TestClock*)>& waits = [](auto*) {})
      : hosted_(MakeCheckpoint(), &backend_,
                HostedExpertsOptions{0, threads, &clock_, [this] { return cpu_time_; }}, [] {}) {
    backend_.OnPack([this, waits] {
      nice_ = getpriority(PRIO_PROCESS, static_cast<id_t>(gettid()));
      cpu_time_ += absl::Milliseconds(10);
      waits(&clock_);
    });
  }
  absl::Status Load(std::vector<uint32_t> experts, Publish publish) {
    return hosted_.Load({{{1, std::move(experts), {}}}}, publish).status();
  }
  TestClock& clock() { return clock_; }
  HostedExperts& hosted() { return hosted_; }
  int nice() const { return nice_; }

 private:
  FakeBackend backend_;
  TestClock clock_;
  std::atomic<int> nice_{0};
  absl::Duration cpu_time_;
  HostedExperts hosted_;
};

TEST(GentleLoadTest, ANodeThatServesRestsBetweenExperts) {
  GentleLoad<JumpingClock> gentle(/*threads=*/2);
  // A 32nd of two threads: 150 ms for 10 ms of work; not before the first, nor after the last.
  ASSERT_TRUE(gentle.Load({0, 1, 2}, Publish::kTogether).ok());
  EXPECT_THAT(gentle.clock().TakeWaits(),
              ElementsAre(absl::Milliseconds(150), absl::Milliseconds(150)));
  EXPECT_EQ(gentle.nice(), 19);
}

TEST(GentleLoadTest, ARestThatIsDueIsTakenBeforeTheNextRequest) {
  GentleLoad<JumpingClock> gentle(/*threads=*/2);
  ASSERT_TRUE(gentle.Load({0}, Publish::kTogether).ok());
  gentle.clock().Pass(absl::Milliseconds(20));
  ASSERT_TRUE(gentle.Load({1}, Publish::kTogether).ok());
  EXPECT_THAT(gentle.clock().TakeWaits(), ElementsAre(absl::Milliseconds(130)));
  gentle.clock().Pass(absl::Milliseconds(150));
  ASSERT_TRUE(gentle.Load({2}, Publish::kTogether).ok());
  EXPECT_THAT(gentle.clock().TakeWaits(), IsEmpty());
}

TEST(GentleLoadTest, ThatAThreadWaitsForTheCpuMakesNoRestLonger) {
  GentleLoad<JumpingClock> gentle(
      /*threads=*/1, [](JumpingClock* clock) { clock->Pass(absl::Seconds(15)); });
  ASSERT_TRUE(gentle.Load({0, 1}, Publish::kTogether).ok());
  EXPECT_THAT(gentle.clock().TakeWaits(), ElementsAre(absl::Milliseconds(310)));
}

TEST(GentleLoadTest, RestsEndWithTheNode) {
  GentleLoad<FakeClock> gentle(/*threads=*/1);
  absl::Status status;
  std::thread loading([&] { status = gentle.Load({0, 1}, Publish::kTogether); });
  gentle.clock().AwaitWaiters(1);  // It has packed one, and rests.
  gentle.hosted().Stop();
  loading.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

TEST(GentleLoadTest, ANodeThatStartsLoadsAsFastAsItCan) {
  GentleLoad<JumpingClock> gentle(/*threads=*/1);
  ASSERT_TRUE(gentle.Load({0, 1, 2}, Publish::kPerLayer).ok());
  EXPECT_THAT(gentle.clock().TakeWaits(), IsEmpty());
  EXPECT_NE(gentle.nice(), 19);
}

}  // namespace
}  // namespace expertmesh::node
