#include "expert_service/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "expert_service/batch_assembly.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExecutorTest : public testing::Test {
 protected:
  ExecutorTest() : hosted_(checkpoint_, &backend_, {0, 1}, [] {}) {
    EXPECT_TRUE(hosted_
                    .Load({{{1, {0, 1, 2, kNumExperts}, {}}, {2, {0, 1, 2}, {}}}},
                          HostedExperts::Publish::kTogether)
                    .ok());
    options_.queue.max_group_rows = 16;
    options_.queue.max_queue_rows = 40;
    Start();
  }

  void Start() {
    executor_ = std::make_unique<Executor>(options_, &backend_, &clock_, &reply_sender_, &metrics_);
    stream_ = executor_->OpenStream(sink_);
  }

  std::unique_ptr<ReceivedBatch> Complete(const TestBatch& sent) {
    BatchAssembler assembler({}, &checkpoint_->model(), &hosted_, &clock_);
    BatchAssembler::Outcome outcome = assembler.Add(MakeFrame(sent, 0, sent.rows()));
    EXPECT_NE(outcome.batch, nullptr) << outcome.status;
    return std::move(outcome.batch);
  }

  TestBatch Random(uint64_t id, size_t rows, uint32_t layer = 1) {
    return RandomBatch(&random_, id, layer, rows, {0, 1, 2});
  }

  void Enqueue(const TestBatch& batch) { EnqueueOn(stream_, batch); }
  void EnqueueOn(StreamId stream, const TestBatch& batch) {
    const absl::Status status = executor_->Enqueue(stream, Complete(batch));
    EXPECT_TRUE(status.ok()) << status;
  }

  // The backend is busy with a batch of one row (id 0) when this returns; everything that is
  // enqueued now waits until backend_.Release().
  void MakeBusy() {
    backend_.Hold();
    Enqueue(Random(0, 1));
    backend_.AwaitHeld();
  }

  static void ExpectRight(FakeSink* sink, const TestBatch& batch) {
    const FakeSink::Answer answer = sink->Await(batch.batch_id, batch.answer_rows());
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_FALSE(answer.malformed);
    EXPECT_TRUE(SameRows(answer.partials, Expected(batch), kDModel)) << "batch " << batch.batch_id;
  }

  std::string Rejected(const std::string& reason) {
    return MetricValue(*registry_, "expertmesh_expert_rejected_total{reason=\"" + reason + "\"}");
  }

  std::shared_ptr<FakeCheckpoint> checkpoint_ = MakeCheckpointWithShared(4 * kIntermediate);
  FakeBackend backend_;
  FakeClock clock_;
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  NodeMetrics metrics_{registry_};
  ReplySender reply_sender_{256, &metrics_};
  HostedExperts hosted_;
  ExecutorOptions options_;
  std::shared_ptr<FakeSink> sink_ = std::make_shared<FakeSink>();
  std::unique_ptr<Executor> executor_;
  StreamId stream_ = 0;
  std::mt19937 random_{2};
};

TEST_F(ExecutorTest, AnswersARowOrMany) {
  for (const size_t rows : {1, 3, 16}) {
    const TestBatch batch = Random(rows, rows);
    Enqueue(batch);
    ExpectRight(sink_.get(), batch);
  }
  EXPECT_GT(sink_->Get(16).frames, 1u);
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
  EXPECT_EQ(executor_->load().batches, 0u);
}

TEST_F(ExecutorTest, WhatWaitsForALayerIsComputedTogetherAcrossStreams) {
  const auto other_sink = std::make_shared<FakeSink>();
  const StreamId other = executor_->OpenStream(other_sink);
  MakeBusy();
  const TestBatch a = Random(1, 4);
  const TestBatch b = Random(1, 5);  // Ids are per stream.
  const TestBatch elsewhere = Random(2, 3, 2);
  const TestBatch c = Random(3, 2);
  Enqueue(a);
  EnqueueOn(other, b);
  Enqueue(elsewhere);
  EnqueueOn(other, c);
  const Executor::Load load = executor_->load();
  EXPECT_EQ(load.batches, 5u);
  EXPECT_EQ(load.rows, 15u);
  EXPECT_EQ(load.waiting_rows, 14u);
  backend_.Release();
  ExpectRight(sink_.get(), a);
  ExpectRight(other_sink.get(), b);
  ExpectRight(sink_.get(), elsewhere);
  ExpectRight(other_sink.get(), c);
  EXPECT_THAT(backend_.calls(), ElementsAre(1, 11, 3));
}

TEST_F(ExecutorTest, ASmallBatchIsAnsweredBeforeEnqueueReturns) {
  options_.inline_parameters = std::numeric_limits<uint64_t>::max();
  Start();
  for (uint64_t id = 1; id <= 20; ++id) {
    const TestBatch batch = Random(id, 3);
    Enqueue(batch);
    EXPECT_GT(sink_->Get(id).frames, 0u);
    ExpectRight(sink_.get(), batch);
    EXPECT_EQ(executor_->load().batches, 0u);
  }
}

TEST_F(ExecutorTest, ABatchThatIsNotSmallOrFindsAnotherWaitsItsTurn) {
  options_.inline_parameters = checkpoint_->model().layers.front().expert.parameters();
  Start();
  TestBatch large = Random(1, 1);
  large.experts[0] = {0, 1};
  large.weights[0] = {1.0f, 2.0f};
  TestBatch small = Random(2, 1);
  small.experts[0] = {2};
  small.weights[0] = {1.0f};
  backend_.Hold();
  Enqueue(large);  // Would not return if it were computed here.
  backend_.AwaitHeld();
  Enqueue(small);
  EXPECT_EQ(sink_->Get(2).frames, 0u);
  backend_.Release();
  ExpectRight(sink_.get(), large);
  ExpectRight(sink_.get(), small);
}

TEST_F(ExecutorTest, TheSharedExpertsCountByTheirOwnParameters) {
  const MoeLayerDescription& layer = checkpoint_->model().layers.front();
  options_.inline_parameters = layer.shared_expert().parameters() - 1;
  Start();
  TestBatch shared = Random(1, 1);
  shared.experts[0] = {layer.shared_expert_id()};
  shared.weights[0] = {1.0f};
  TestBatch routed = Random(2, 1);
  routed.experts[0] = {0, 1, 2};
  routed.weights[0] = {1.0f, 2.0f, 4.0f};
  backend_.Hold();
  Enqueue(shared);  // Would not return if it were computed here.
  backend_.AwaitHeld();
  backend_.Release();
  ExpectRight(sink_.get(), shared);
  Start();  // Idle for certain.
  Enqueue(routed);
  EXPECT_GT(sink_->Get(2).frames, 0u);
  ExpectRight(sink_.get(), routed);
}

TEST_F(ExecutorTest, StopWaitsForASmallBatchOnItsWay) {
  options_.inline_parameters = std::numeric_limits<uint64_t>::max();
  Start();
  backend_.Hold();
  const TestBatch batch = Random(1, 2);
  std::thread network([&] { Enqueue(batch); });
  backend_.AwaitHeld();
  std::thread stopping([&] { executor_->Stop(); });
  backend_.Release();
  stopping.join();
  EXPECT_GT(sink_->Get(1).frames, 0u);
  network.join();
}

TEST_F(ExecutorTest, BatchesPerRowAndPerAssignmentAreComputedTogether) {
  options_.queue.max_group_rows = 64;
  Start();
  MakeBusy();
  std::vector<TestBatch> batches;
  size_t answer_rows = 0;
  for (uint64_t id = 1; id <= 5; ++id) {
    batches.push_back(Random(id, 2 + id));
    batches.back().per_assignment = id % 2 == 1;
    answer_rows += batches.back().answer_rows();
    Enqueue(batches.back());
  }
  ASSERT_LE(answer_rows, options_.queue.max_group_rows);
  backend_.Release();
  for (const TestBatch& batch : batches) {
    ExpectRight(sink_.get(), batch);
  }
  EXPECT_THAT(backend_.calls(), ElementsAre(1, answer_rows));
}

TEST_F(ExecutorTest, AMergedBatchAnswersAtMostMaxBatchRows) {
  TestBatch batch = Random(1, 0);
  for (int row = 0; row < 3; ++row) {
    batch.experts.push_back({0, 2, 1});
    batch.weights.push_back({1.0f, 2.0f, 4.0f});
    batch.hidden_states.push_back(std::vector<float>(kDModel, 3.0f));
  }
  batch.per_assignment = true;
  MakeBusy();
  Enqueue(batch);  // 3 rows, 9 of the answer; two of them pass 16.
  batch.batch_id = 2;
  Enqueue(batch);
  backend_.Release();
  ExpectRight(sink_.get(), batch);
  EXPECT_THAT(backend_.calls(), ElementsAre(1, 9, 9));
}

TEST_F(ExecutorTest, AMergedBatchHasAtMostMaxBatchRows) {
  MakeBusy();
  for (uint64_t id = 1; id <= 5; ++id) {
    Enqueue(Random(id, 7));
  }
  backend_.Release();
  sink_->Await(5, 7);
  EXPECT_THAT(backend_.calls(), ElementsAre(1, 14, 14, 7));
}

TEST_F(ExecutorTest, OldestFirstButNearDeadlinesBeforeThat) {
  options_.queue.max_queue_rows = 100;
  Start();
  MakeBusy();
  Enqueue(Random(1, 15));
  clock_.Advance(absl::Milliseconds(1));
  Enqueue(Random(2, 14, 2));
  clock_.Advance(absl::Milliseconds(1));
  TestBatch urgent = Random(3, 13);
  urgent.has_timeout = true;
  urgent.timeout_us = 5000;
  Enqueue(urgent);
  TestBatch patient = Random(4, 12);  // A far deadline changes nothing.
  patient.has_timeout = true;
  patient.timeout_us = 60'000'000;
  Enqueue(patient);
  backend_.Release();
  sink_->Await(4, 12);
  // Urgent: 13; then the oldest of the rest is layer 1's batch 1, then layer 2's, then 4.
  EXPECT_THAT(backend_.calls(), ElementsAre(1, 13, 15, 14, 12));
}

TEST_F(ExecutorTest, ExpiredBatchesAreAnsweredAndNotComputed) {
  MakeBusy();
  TestBatch batch = Random(1, 4);
  batch.has_timeout = true;
  batch.timeout_us = 1000;
  Enqueue(batch);
  const TestBatch lasting = Random(2, 3);
  Enqueue(lasting);
  clock_.Advance(absl::Milliseconds(1));
  backend_.Release();
  const FakeSink::Answer answer = sink_->Await(1, 4);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(answer.malformed);
  ExpectRight(sink_.get(), lasting);
  EXPECT_THAT(backend_.calls(), ElementsAre(1, 3));
  EXPECT_EQ(Rejected("deadline_exceeded"), "1");
}

TEST_F(ExecutorTest, TimingsAreOfTheClock) {
  MakeBusy();
  Enqueue(Random(1, 4));
  clock_.Advance(absl::Microseconds(300));
  backend_.Release();
  EXPECT_EQ(sink_->Await(0, 1).compute_us, 300u);
  EXPECT_EQ(sink_->Await(0, 1).queue_us, 0u);
  EXPECT_EQ(sink_->Await(1, 4).queue_us, 300u);
  EXPECT_EQ(sink_->Await(1, 4).compute_us, 0u);
}

TEST_F(ExecutorTest, AFullQueueRefusesAtOnce) {
  MakeBusy();
  Enqueue(Random(1, 16));
  Enqueue(Random(2, 16));
  Enqueue(Random(3, 8));
  absl::Status full = executor_->Enqueue(stream_, Complete(Random(4, 1)));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("max_queue_rows 40"));
  backend_.Release();
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
  Enqueue(Random(4, 1));
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));

  options_.queue.max_queue_bytes = 1;
  Start();
  full = executor_->Enqueue(stream_, Complete(Random(5, 1)));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("max_queue_bytes"));
}

TEST_F(ExecutorTest, AnIdIsUsedOnceAtATime) {
  MakeBusy();
  Enqueue(Random(1, 2));
  const absl::Status again = executor_->Enqueue(stream_, Complete(Random(1, 2)));
  EXPECT_EQ(again.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(again.message()), HasSubstr("batch_id 1"));
  EXPECT_EQ(executor_->Enqueue(stream_, Complete(Random(0, 2))).code(),
            absl::StatusCode::kInvalidArgument)
      << "being computed";
  backend_.Release();
  sink_->Await(1, 2);
  // Free again as soon as the answer is seen.
  Enqueue(Random(1, 2));
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
}

TEST_F(ExecutorTest, BatchesOfAStreamThatIsGoneAreDropped) {
  const auto other_sink = std::make_shared<FakeSink>();
  const StreamId other = executor_->OpenStream(other_sink);
  MakeBusy();
  Enqueue(Random(1, 5));
  Enqueue(Random(2, 5, 2));
  const TestBatch kept = Random(1, 3);
  EnqueueOn(other, kept);
  sink_->Break();
  executor_->CloseStream(stream_);
  EXPECT_EQ(executor_->load().waiting_rows, 3u);
  EXPECT_EQ(executor_->Enqueue(stream_, Complete(Random(3, 1))).code(),
            absl::StatusCode::kUnavailable);
  backend_.Release();
  ExpectRight(other_sink.get(), kept);
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
  EXPECT_THAT(backend_.calls(), ElementsAre(1, 3));
  EXPECT_EQ(sink_->answers(), 0u);
  EXPECT_EQ(Rejected("stream_gone"), "3");
}

TEST_F(ExecutorTest, AStreamThatBreaksUnnoticedIsDroppedWhenItsTurnComes) {
  const auto other_sink = std::make_shared<FakeSink>();
  const StreamId other = executor_->OpenStream(other_sink);
  MakeBusy();
  EnqueueOn(other, Random(1, 5));
  other_sink->Break();  // CloseStream is not called.
  backend_.Release();
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
  EXPECT_THAT(backend_.calls(), ElementsAre(1));
}

TEST_F(ExecutorTest, AnAnswerThatCannotBeSentEndsItsStream) {
  MakeBusy();
  Enqueue(Random(2, 5));
  sink_->BreakUnnoticed();
  backend_.Release();
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
  EXPECT_THAT(backend_.calls(), ElementsAre(1));
  EXPECT_EQ(executor_->Enqueue(stream_, Complete(Random(3, 1))).code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(ExecutorTest, AStreamThatOnlyStoppedSendingIsAnswered) {
  MakeBusy();
  const TestBatch batch = Random(1, 5);
  Enqueue(batch);
  executor_->CloseStream(stream_);
  EXPECT_EQ(sink_.use_count(), 3) << "ours, and one for each batch";
  backend_.Release();
  ExpectRight(sink_.get(), batch);
}

TEST_F(ExecutorTest, AFailingBackendFailsItsGroupOnly) {
  backend_.FailNext(absl::InternalError("no memory in the kernel"));
  MakeBusy();
  const TestBatch after = Random(1, 2);
  Enqueue(after);
  backend_.Release();
  const FakeSink::Answer failed = sink_->Await(0, 1);
  EXPECT_EQ(failed.status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(failed.status.message(), "layer 1: no memory in the kernel");
  ExpectRight(sink_.get(), after);
}

TEST_F(ExecutorTest, ExpertsAreLetGoWhenTheBatchIsComputed) {
  MakeBusy();
  const Executor::Load before = executor_->load();
  EXPECT_EQ(before.batches, 1u);
  std::thread unloading([this] {
    EXPECT_EQ(*hosted_.Unload({{{1, {0, 1, 2, kNumExperts}, {}}}}), 4u);
    EXPECT_EQ(backend_.alive(), 3);
  });
  while (hosted_.FindLayer(1) != nullptr) {
    std::this_thread::yield();
  }
  EXPECT_EQ(backend_.alive(), 7);
  backend_.Release();
  unloading.join();
  EXPECT_TRUE(sink_->Await(0, 1).status.ok());
}

TEST_F(ExecutorTest, AwaitIdleEndsAtItsDeadline) {
  MakeBusy();
  const absl::Time deadline = clock_.Now() + absl::Seconds(5);
  std::thread waiting([&] { EXPECT_FALSE(executor_->AwaitIdle(deadline)); });
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(5));
  waiting.join();
  backend_.Release();
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
}

// With a backend that completes later, and of which two batches should be in flight.
class ExecutorInFlightTest : public ExecutorTest {
 protected:
  ExecutorInFlightTest() {
    backend_.CompleteLater(2);
    Start();
  }
};

TEST_F(ExecutorInFlightTest, GroupsAreInFlightTogetherAndAnsweredAsTheyComplete) {
  const TestBatch first = Random(1, 3);
  const TestBatch second = Random(2, 5, 2);
  Enqueue(first);
  backend_.AwaitSubmitted(1);
  Enqueue(second);
  backend_.AwaitSubmitted(2);
  EXPECT_EQ(executor_->load().rows, 8u);
  EXPECT_EQ(executor_->load().waiting_rows, 0u);
  backend_.Complete(1);
  ExpectRight(sink_.get(), second);
  EXPECT_EQ(sink_->Get(1).frames, 0u);
  backend_.Complete(0);
  ExpectRight(sink_.get(), first);
  EXPECT_EQ(executor_->load().batches, 0u);
}

TEST_F(ExecutorInFlightTest, WhatPassesTheBackendsPreferenceWaitsAndIsMerged) {
  Enqueue(Random(1, 1));
  backend_.AwaitSubmitted(1);
  Enqueue(Random(2, 2));
  backend_.AwaitSubmitted(2);
  const TestBatch a = Random(3, 4);
  const TestBatch b = Random(4, 5);
  Enqueue(a);
  Enqueue(b);
  EXPECT_EQ(executor_->load().waiting_rows, 9u);
  backend_.Complete(0);
  backend_.AwaitSubmitted(2);
  backend_.Complete(1);
  ExpectRight(sink_.get(), a);
  ExpectRight(sink_.get(), b);
  backend_.Complete(0);
  EXPECT_THAT(backend_.calls(), ElementsAre(1, 2, 9));
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
}

TEST_F(ExecutorInFlightTest, ASmallBatchBesideAnotherGoesThroughTheQueue) {
  options_.inline_parameters = std::numeric_limits<uint64_t>::max();
  Start();
  Enqueue(Random(1, 2));
  EXPECT_EQ(backend_.submitted(), 1u) << "on the thread that brought it";
  Enqueue(Random(2, 2));
  backend_.AwaitSubmitted(2);
  backend_.Complete(1);
  backend_.Complete(0);
  EXPECT_TRUE(executor_->AwaitIdle(absl::InfiniteFuture()));
}

TEST_F(ExecutorInFlightTest, AnErrorIsOfItsGroupOnly) {
  Enqueue(Random(1, 3));
  backend_.AwaitSubmitted(1);
  const TestBatch other = Random(2, 5, 2);
  Enqueue(other);
  backend_.AwaitSubmitted(2);
  backend_.FailNext(absl::InternalError("the device is lost"));
  backend_.Complete(0);
  EXPECT_EQ(sink_->Get(1).status.message(), "layer 1: the device is lost");
  backend_.Complete(0);
  ExpectRight(sink_.get(), other);
}

TEST_F(ExecutorInFlightTest, TimesAreOfEachGroup) {
  Enqueue(Random(1, 3));
  backend_.AwaitSubmitted(1);
  clock_.Advance(absl::Microseconds(100));
  Enqueue(Random(2, 5, 2));
  backend_.AwaitSubmitted(2);
  Enqueue(Random(3, 1));
  clock_.Advance(absl::Microseconds(20));
  backend_.Complete(1);
  backend_.AwaitSubmitted(2);
  clock_.Advance(absl::Microseconds(3));
  backend_.Complete(0);
  backend_.Complete(0);
  EXPECT_EQ(sink_->Get(1).queue_us, 0u);
  EXPECT_EQ(sink_->Get(1).compute_us, 123u);
  EXPECT_EQ(sink_->Get(2).queue_us, 0u);
  EXPECT_EQ(sink_->Get(2).compute_us, 20u);
  EXPECT_EQ(sink_->Get(3).queue_us, 20u);
  EXPECT_EQ(sink_->Get(3).compute_us, 3u);
}

TEST_F(ExecutorInFlightTest, StopWaitsForTheBackend) {
  Enqueue(Random(1, 3));
  backend_.AwaitSubmitted(1);
  Enqueue(Random(2, 5, 2));
  backend_.AwaitSubmitted(2);
  Enqueue(Random(3, 1));
  std::thread stopping([this] { executor_->Stop(); });
  EXPECT_EQ(sink_->Await(3, 1).status.code(), absl::StatusCode::kUnavailable);
  backend_.Complete(1);
  backend_.Complete(0);
  stopping.join();
  EXPECT_TRUE(sink_->Get(1).status.ok());
  EXPECT_EQ(sink_->Get(1).frames, 1u);
  EXPECT_EQ(sink_->Get(2).frames, 1u);
}

TEST_F(ExecutorTest, StopAnswersWhatWaits) {
  MakeBusy();
  Enqueue(Random(1, 2));
  std::thread stopping([this] { executor_->Stop(); });
  EXPECT_EQ(sink_->Await(1, 2).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(executor_->Enqueue(stream_, Complete(Random(2, 1))).code(),
            absl::StatusCode::kUnavailable);
  backend_.Release();
  stopping.join();
  EXPECT_TRUE(sink_->Get(0).status.ok()) << "was being computed";
  EXPECT_EQ(sink_->Get(0).frames, 1u);
}

}  // namespace
}  // namespace expertmesh::node
