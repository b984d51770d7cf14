// A node that has not memory for all that it hosts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "expert_service/node.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kExpertBytes = 3 * kDModel * kIntermediate * sizeof(float);
const std::vector<uint32_t> kLayers = {1, 2, 4};

class NodeMemoryTest : public testing::TestWithParam<std::string> {
 protected:
  // Memory for so many experts of the 30.
  void Start(uint64_t experts, int threads = 2) {
    options_.node_id = "a";
    options_.memory_bytes = experts * kExpertBytes;
    options_.load_threads = threads;
    options_.cpu_time = NoCpuTime;
    auto node = Node::Create(options_, checkpoint_, &backend_, &clock_, registry_);
    ASSERT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
  }
  absl::Status Load() { return node_->Load({{{1, kAll, {}}, {2, kAll, {}}, {4, kAll, {}}}}); }
  void StartAndLoad(uint64_t experts, int threads = 2) {
    Start(experts, threads);
    const absl::Status status = Load();
    ASSERT_TRUE(status.ok()) << status;
    stream_ = node_->OpenCompute(sink_);
  }
  void TearDown() override {
    stream_.reset();
    node_.reset();
    EXPECT_EQ(backend_.alive(), 0);
  }

  static void Send(StreamHandler* stream, const TestBatch& batch) {
    stream->OnFrame(MakeFrame(batch, 0, batch.rows()));
  }
  // One row, each expert once.
  static TestBatch Use(uint64_t id, uint32_t layer, const std::vector<uint32_t>& experts) {
    TestBatch batch;
    batch.batch_id = id;
    batch.layer = layer;
    batch.experts = {experts};
    batch.weights = {std::vector<float>(experts.size(), 2.0f)};
    batch.hidden_states = {{1, 2, 3, 4, 5, 6}};
    return batch;
  }
  void ExpectRight(const TestBatch& batch) { ExpectRight(sink_.get(), batch); }
  static void ExpectRight(FakeSink* sink, const TestBatch& batch) {
    const FakeSink::Answer answer = sink->Await(batch.batch_id, batch.rows());
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_TRUE(SameRows(answer.partials, Expected(batch), kDModel)) << "batch " << batch.batch_id;
  }
  void ExpectError(uint64_t id, absl::StatusCode code, const std::string& words) {
    const absl::Status status = sink_->Await(id, 1).status;
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }
  std::string Metric(const std::string& name) {
    return MetricValue(*registry_, "expertmesh_expert_cache_" + name);
  }
  // Packing waits from now on until `release_` is notified, and says so once.
  void HoldPacking() {
    backend_.OnPack([this] {
      if (!packing_.HasBeenNotified()) {
        packing_.Notify();
      }
      release_.WaitForNotification();
    });
  }

  const std::vector<uint32_t> kAll = [] {
    std::vector<uint32_t> all(kNumExperts);
    std::iota(all.begin(), all.end(), 0);
    return all;
  }();
  NodeOptions options_;
  std::shared_ptr<FakeCheckpoint> checkpoint_ = MakeCheckpoint();
  FakeBackend backend_;
  FakeClock clock_;
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  absl::Notification packing_;
  absl::Notification release_;
  std::unique_ptr<Node> node_;
  std::shared_ptr<FakeSink> sink_ = std::make_shared<FakeSink>();
  std::unique_ptr<StreamHandler> stream_;
  std::mt19937 random_{5};
};

INSTANTIATE_TEST_SUITE_P(Policies, NodeMemoryTest,
                         testing::Values("lru", "frequency", "predictive"));

TEST_P(NodeMemoryTest, AnswersAreRightAndTheLimitIsKept) {
  options_.memory_policy = GetParam();
  std::atomic<int> most = 0;
  backend_.OnPack([&] { most = std::max(most.load(), backend_.alive() + 1); });
  StartAndLoad(11, 1);
  EXPECT_EQ(backend_.alive(), 11);
  EXPECT_EQ(Metric("resident_bytes"), std::to_string(11 * kExpertBytes));
  size_t uses = 0;
  std::vector<TestBatch> sent;
  for (uint64_t id = 1; id <= 400; ++id) {
    const uint32_t layer = kLayers[random_() % 3];
    const TestBatch batch = RandomBatch(&random_, id, layer, 1 + random_() % 4, kAll);
    std::vector<bool> used(kNumExperts);
    for (const std::vector<uint32_t>& row : batch.experts) {
      for (const uint32_t expert : row) {
        uses += used[expert] ? 0 : 1;
        used[expert] = true;
      }
    }
    Send(stream_.get(), batch);
    sent.push_back(batch);
  }
  for (const TestBatch& batch : sent) {
    ExpectRight(batch);
  }
  EXPECT_TRUE(node_->Drain(absl::ZeroDuration(), absl::InfiniteFuture()));
  EXPECT_LE(most, 11);
  EXPECT_LE(backend_.alive(), 11);
  EXPECT_EQ(std::stoul(Metric("hits_total")) + std::stoul(Metric("misses_total")), uses);
  EXPECT_GT(std::stoul(Metric("hits_total")), 0u);
  EXPECT_EQ(Metric("loaded_bytes_total"), std::to_string((backend_.packed() - 11) * kExpertBytes));
}

using NodeMemoryOnceTest = NodeMemoryTest;
INSTANTIATE_TEST_SUITE_P(Once, NodeMemoryOnceTest, testing::Values("frequency"));

TEST_P(NodeMemoryOnceTest, WhatIsThereDoesNotWaitForWhatIsNot) {
  StartAndLoad(10);  // Those of layer 1.
  HoldPacking();
  Send(stream_.get(), Use(1, 4, {0, 3}));
  packing_.WaitForNotification();
  for (uint64_t id = 2; id < 20; ++id) {
    Send(stream_.get(), Use(id, 1, {5, 6}));
    ExpectRight(Use(id, 1, {5, 6}));
  }
  EXPECT_EQ(sink_->Get(1).frames, 0u);
  EXPECT_GE(node_->Status().batches_in_flight(), 1u);
  release_.Notify();
  ExpectRight(Use(1, 4, {0, 3}));
}

TEST_P(NodeMemoryOnceTest, WhatSeveralWaitForIsPackedOnce) {
  StartAndLoad(10);
  HoldPacking();
  for (uint64_t id = 1; id <= 5; ++id) {
    Send(stream_.get(), Use(id, 4, {3}));
  }
  packing_.WaitForNotification();
  release_.Notify();
  for (uint64_t id = 1; id <= 5; ++id) {
    ExpectRight(Use(id, 4, {3}));
  }
  EXPECT_EQ(backend_.packed(), 11);
}

TEST_P(NodeMemoryOnceTest, WhatIsUsedKeepsItsMemoryUntilItIsComputed) {
  StartAndLoad(10);
  backend_.Hold();
  Send(stream_.get(), Use(1, 1, kAll));
  backend_.AwaitHeld();
  Send(stream_.get(), Use(2, 2, {7}));  // There is no room while the first is computed.
  EXPECT_EQ(backend_.packed(), 10);
  backend_.Release();
  ExpectRight(Use(1, 1, kAll));
  ExpectRight(Use(2, 2, {7}));
}

TEST_P(NodeMemoryOnceTest, ALayerThatDoesNotFitIsRefused) {
  Start(9);
  const absl::Status status = Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--device-memory) is"));
  EXPECT_EQ(backend_.packed(), 0);
  // What is loaded later counts, too.
  Start(4);
  ASSERT_TRUE(node_->Load({{{1, {0, 1, 2}, {}}}}).ok());
  internal::v1::LoadExpertsRequest more;
  more.add_experts()->set_layer(1);
  more.mutable_experts(0)->mutable_experts()->Add(3);
  EXPECT_TRUE(node_->LoadExperts(more).ok());
  more.mutable_experts(0)->set_experts(0, 4);
  EXPECT_EQ(node_->LoadExperts(more).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_P(NodeMemoryOnceTest, WhoseDeadlineHasPassedIsNotPackedFor) {
  StartAndLoad(10);
  HoldPacking();
  Send(stream_.get(), Use(1, 4, {3}));
  packing_.WaitForNotification();
  TestBatch late = Use(2, 4, {5});
  late.has_timeout = true;
  late.timeout_us = 1000;
  Send(stream_.get(), late);
  clock_.Advance(absl::Milliseconds(1));
  release_.Notify();
  ExpectError(2, absl::StatusCode::kDeadlineExceeded, "not in memory");
  ExpectRight(Use(1, 4, {3}));
  EXPECT_EQ(backend_.packed(), 11);
}

TEST_P(NodeMemoryOnceTest, AStreamThatGoesTakesWhatWaitsWithIt) {
  StartAndLoad(10);
  HoldPacking();
  Send(stream_.get(), Use(1, 4, {3}));
  packing_.WaitForNotification();
  sink_->Break();
  stream_.reset();
  EXPECT_EQ(node_->Status().batches_in_flight(), 0u);
  release_.Notify();
  EXPECT_TRUE(node_->Drain(absl::ZeroDuration(), absl::InfiniteFuture()));
}

TEST_P(NodeMemoryOnceTest, WhatCannotBeReadAgainIsAnErrorOfItsBatch) {
  StartAndLoad(10);
  checkpoint_->ShortenFiles();
  Send(stream_.get(), Use(1, 4, {3}));
  ExpectError(1, absl::StatusCode::kInternal, "layer 4 expert 3 again: model.safetensors was");
  Send(stream_.get(), Use(2, 1, {3}));
  ExpectRight(Use(2, 1, {3}));
  EXPECT_LE(backend_.alive(), 10);
}

TEST_P(NodeMemoryOnceTest, OtherBytesThanAtTheStartAreNotUsed) {
  StartAndLoad(10);
  const ExpertWeights weights = *checkpoint_->Expert(4, 3);
  const_cast<uint8_t*>(weights.down.data)[5] ^= 1;
  Send(stream_.get(), Use(1, 4, {2, 3}));
  ExpectError(1, absl::StatusCode::kInternal, "not those of the start");
  Send(stream_.get(), Use(2, 4, {2}));
  ExpectRight(Use(2, 4, {2}));
}

TEST_P(NodeMemoryOnceTest, WhatIsUnloadedIsFreeForOthers) {
  StartAndLoad(10);
  internal::v1::UnloadExpertsRequest request;
  request.add_experts()->set_layer(1);
  request.mutable_experts(0)->mutable_experts()->Add(kAll.begin(), kAll.end());
  ASSERT_TRUE(node_->UnloadExperts(request).ok());
  EXPECT_EQ(backend_.alive(), 0);
  EXPECT_EQ(Metric("resident_bytes"), "0");
  Send(stream_.get(), Use(1, 4, kAll));
  ExpectRight(Use(1, 4, kAll));
  Send(stream_.get(), Use(2, 4, kAll));
  ExpectRight(Use(2, 4, kAll));
  EXPECT_EQ(backend_.packed(), 20);
}

TEST_P(NodeMemoryOnceTest, WhatWasAcceptedIsAnsweredThoughItIsUnloaded) {
  StartAndLoad(10);
  HoldPacking();
  Send(stream_.get(), Use(1, 4, {3, 4}));
  packing_.WaitForNotification();
  std::thread unload([this] {
    internal::v1::UnloadExpertsRequest request;
    request.add_experts()->set_layer(4);
    request.mutable_experts(0)->mutable_experts()->Add(3);
    EXPECT_TRUE(node_->UnloadExperts(request).ok());
  });
  while (node_->Describe().hosted(2).experts_size() == 10) {
    std::this_thread::yield();
  }
  release_.Notify();
  ExpectRight(Use(1, 4, {3, 4}));
  unload.join();
  Send(stream_.get(), Use(2, 4, {3}));
  EXPECT_FALSE(sink_->Await(2, 1).status.ok());
}

TEST_P(NodeMemoryOnceTest, ANodeThatGoesAnswersWhatWaits) {
  StartAndLoad(10, 1);
  HoldPacking();
  Send(stream_.get(), Use(1, 4, {3}));
  packing_.WaitForNotification();
  Send(stream_.get(), Use(2, 4, {5}));
  std::thread stop([this] { node_->Drain(absl::ZeroDuration(), clock_.Now()); });
  ExpectError(2, absl::StatusCode::kUnavailable, "stopping");
  stop.join();
  release_.Notify();
}

TEST_P(NodeMemoryOnceTest, ManyCallersAtOnce) {
  StartAndLoad(12);
  std::vector<std::thread> callers;
  for (uint32_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([this, caller] {
      std::mt19937 random(caller);
      const auto sink = std::make_shared<FakeSink>();
      const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
      for (uint64_t id = 1; id <= 200; ++id) {
        const TestBatch batch = RandomBatch(&random, id, kLayers[random() % 3], 2, kAll);
        Send(stream.get(), batch);
        ExpectRight(sink.get(), batch);
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  EXPECT_LE(backend_.alive(), 12);
}

}  // namespace
}  // namespace expertmesh::node
