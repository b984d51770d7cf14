#include "router_service/batch/layer_batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace expertmesh::batch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class LayerBatcherTest : public testing::Test {
 protected:
  void Make(const BatcherOptions& options) {
    batcher_ = std::make_unique<LayerBatcher>(options, &clock_, &timers_,
                                              [this](std::vector<ForwardJobPtr> jobs) {
                                                absl::MutexLock lock(&mutex_);
                                                std::vector<uint64_t> ids;
                                                for (const ForwardJobPtr& job : jobs) {
                                                  ids.push_back(job->request().request_id());
                                                }
                                                batches_.push_back(ids);
                                              });
  }

  ForwardJobPtr Job(uint64_t id, uint64_t rows, absl::Time deadline = absl::InfiniteFuture(),
                    CallContextPtr context = std::make_shared<CallContext>(CallContext::Caller())) {
    auto job = std::make_shared<ForwardJob>();
    v1::ForwardRequest& request = job->received()->message;
    request.set_request_id(id);
    job->received()->tensor = TensorFrame{Dtype::kF32, rows, 1, {}};
    job->Accept(Dtype::kF32, clock_.Now(), deadline, context, &timers_, nullptr,
                [this](const v1::ForwardResponse& response, const std::optional<TensorFrame>&) {
                  absl::MutexLock lock(&mutex_);
                  answers_.emplace_back(response.request_id(), response.status().code());
                });
    return job;
  }

  std::vector<std::vector<uint64_t>> batches() {
    absl::MutexLock lock(&mutex_);
    return batches_;
  }

  void AwaitBatches(size_t count) {
    const auto enough = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return batches_.size() >= count;
    };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&enough));
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  absl::Mutex mutex_;
  std::vector<std::vector<uint64_t>> batches_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<uint64_t, int>> answers_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<LayerBatcher> batcher_;
};

TEST_F(LayerBatcherTest, AnIdleLayerDispatchesAtOnce) {
  Make({});
  ASSERT_TRUE(batcher_->Add(Job(1, 4)).ok());
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1)));
}

TEST_F(LayerBatcherTest, ArrivalsCoalesceWhileABatchIsInFlight) {
  Make({});
  for (uint64_t id = 1; id <= 4; ++id) {
    ASSERT_TRUE(batcher_->Add(Job(id, 4)).ok());
  }
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1)));
  batcher_->BatchDone(1, absl::Milliseconds(1));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2, 3, 4)));
}

TEST_F(LayerBatcherTest, AFullBatchLeavesAlthoughOthersAreInFlight) {
  Make({.max_batch_tokens = 8});
  for (uint64_t id = 1; id <= 4; ++id) {
    ASSERT_TRUE(batcher_->Add(Job(id, 4)).ok());
  }
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2, 3)));
}

TEST_F(LayerBatcherTest, ARequestLargerThanABatchGoesAlone) {
  Make({.max_batch_tokens = 8});
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());
  ASSERT_TRUE(batcher_->Add(Job(2, 3)).ok());
  ASSERT_TRUE(batcher_->Add(Job(3, 100)).ok());
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3)));
}

TEST_F(LayerBatcherTest, ADelayLetsTheFirstWaitForCompany) {
  Make({.max_queue_delay = absl::Microseconds(200)});
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());
  ASSERT_TRUE(batcher_->Add(Job(2, 1)).ok());
  EXPECT_THAT(batches(), IsEmpty());
  clock_.Advance(absl::Microseconds(200));
  AwaitBatches(1);
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1, 2)));
}

// Callers 1 to 4, of 4 tokens each; a batch takes 100 ms.
class ClosedLoopTest : public LayerBatcherTest {
 protected:
  void Start(const BatcherOptions& options) {
    Make(options);
    for (uint64_t id = 1; id <= 4; ++id) {
      ASSERT_TRUE(batcher_->Add(Job(id, 4)).ok());
    }
  }
  // Answers the batch in flight; each of its callers asks again `pause` after the one before.
  void AnswerOne(absl::Duration pause) {
    const std::vector<uint64_t> callers = batches().at(answered_++);
    clock_.Advance(absl::Milliseconds(100));
    batcher_->BatchDone(4 * callers.size(), absl::Milliseconds(100));
    for (const uint64_t id : callers) {
      clock_.Advance(pause);
      ASSERT_TRUE(batcher_->Add(Job(id, 4)).ok());
    }
    AwaitBatches(answered_ + 1);
  }

  size_t answered_ = 0;
};

TEST_F(ClosedLoopTest, CallersThatComeBackSoonAreWaitedForAndLeaveTogether) {
  Start({.max_linger_share = 0.05});
  EXPECT_THAT(batches().back(), ElementsAre(1));
  for (int i = 0; i < 12; ++i) {
    AnswerOne(absl::Milliseconds(1));
  }
  // In the order in which they were answered, and before the 5 ms have passed.
  EXPECT_THAT(batches().back(), testing::SizeIs(4));
  EXPECT_THAT(batches().at(answered_ - 1), testing::SizeIs(4));
}

TEST_F(ClosedLoopTest, WithoutLingeringTheFirstToComeBackLeavesAlone) {
  Start({.max_linger_share = 0});
  for (int i = 0; i < 12; ++i) {
    AnswerOne(absl::Milliseconds(1));
  }
  EXPECT_THAT(batches().at(answered_).size() + batches().at(answered_ - 1).size(), 4u);
}

TEST_F(ClosedLoopTest, AWaitThatIsInVainEnds) {
  Start({.max_linger_share = 0.05});
  for (int i = 0; i < 12; ++i) {
    AnswerOne(absl::Milliseconds(1));
  }
  ++answered_;
  clock_.Advance(absl::Milliseconds(100));
  batcher_->BatchDone(16, absl::Milliseconds(100));
  ASSERT_TRUE(batcher_->Add(Job(1, 4)).ok());
  EXPECT_EQ(batches().size(), answered_);
  clock_.Advance(absl::Milliseconds(5));
  AwaitBatches(answered_ + 1);
  EXPECT_THAT(batches().back(), ElementsAre(1));
}

TEST_F(ClosedLoopTest, CallersThatTakeTheirTimeAreNotWaitedFor) {
  Start({.max_linger_share = 0.05});
  for (int i = 0; i < 12; ++i) {
    AnswerOne(absl::Milliseconds(10));
  }
  EXPECT_THAT(batches().at(answered_).size() + batches().at(answered_ - 1).size(), 4u);
}

TEST_F(ClosedLoopTest, ACallerAloneNeverWaits) {
  Make({.max_linger_share = 0.05});
  for (size_t round = 1; round <= 8; ++round) {
    ASSERT_TRUE(batcher_->Add(Job(1, 4)).ok());
    ASSERT_EQ(batches().size(), round);
    clock_.Advance(absl::Milliseconds(100));
    batcher_->BatchDone(4, absl::Milliseconds(100));
    clock_.Advance(absl::Milliseconds(1));
  }
}

TEST_F(LayerBatcherTest, TheEarliestDeadlineLessTheServiceTimeClosesABatch) {
  Make({});
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());
  batcher_->BatchDone(1, absl::Milliseconds(10));  // What a batch of this layer takes.
  ASSERT_TRUE(batcher_->Add(Job(2, 1)).ok());      // In flight from here on.
  ASSERT_TRUE(batcher_->Add(Job(3, 1)).ok());
  ASSERT_TRUE(batcher_->Add(Job(4, 1, clock_.Now() + absl::Milliseconds(50))).ok());
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2)));
  clock_.Advance(absl::Milliseconds(39));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2)));
  clock_.Advance(absl::Milliseconds(1));
  AwaitBatches(3);
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3, 4)));
}

TEST_F(LayerBatcherTest, NodesAreNotFlooded) {
  Make({.max_batch_tokens = 10, .max_in_flight_tokens = 20});
  for (uint64_t id = 1; id <= 5; ++id) {
    ASSERT_TRUE(batcher_->Add(Job(id, 10, clock_.Now() + absl::Seconds(1))).ok());
  }
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2)));
  batcher_->BatchDone(10, absl::Milliseconds(1));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3)));
  // Not even what is about to be late: it would be later than what is on its way.
  clock_.Advance(absl::Milliseconds(999));
  EXPECT_EQ(batches().size(), 3u);
  batcher_->BatchDone(10, absl::Milliseconds(1));
  batcher_->BatchDone(10, absl::Milliseconds(1));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3), ElementsAre(4),
                                     ElementsAre(5)));
}

TEST_F(LayerBatcherTest, AFullQueueRefuses) {
  Make({.max_batch_tokens = 100, .max_queue_tokens = 100});
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());  // In flight.
  ASSERT_TRUE(batcher_->Add(Job(2, 60)).ok());
  const absl::Status status = batcher_->Add(Job(3, 60));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("60 tokens of at most 100"));
  EXPECT_TRUE(batcher_->Add(Job(4, 39)).ok());
}

TEST_F(LayerBatcherTest, WhatWasAnsweredWhileWaitingDoesNotTravel) {
  Make({});
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());
  const ForwardJobPtr late = Job(2, 1);
  ASSERT_TRUE(batcher_->Add(late).ok());
  ASSERT_TRUE(batcher_->Add(Job(3, 1)).ok());
  late->Fail(absl::DeadlineExceededError("late"));
  batcher_->BatchDone(1, absl::Milliseconds(1));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(3)));
}

TEST_F(LayerBatcherTest, RequestsOfCallersThatWentAwayAreAnsweredAndDoNotTravel) {
  Make({.max_batch_tokens = 8, .max_queue_tokens = 100});
  const auto gone = std::make_shared<CallContext>(CallContext::Caller());
  const auto job_of_gone = [&](uint64_t id, uint64_t rows) {
    return Job(id, rows, absl::InfiniteFuture(), gone);
  };
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());  // In flight.
  ASSERT_TRUE(batcher_->Add(job_of_gone(2, 1)).ok());
  ASSERT_TRUE(batcher_->Add(Job(3, 1)).ok());
  ASSERT_TRUE(batcher_->Add(job_of_gone(4, 1)).ok());
  gone->Cancel();
  ASSERT_TRUE(batcher_->Add(job_of_gone(5, 40)).ok());  // As many as close a batch.
  ASSERT_TRUE(batcher_->Add(Job(6, 1)).ok());
  const auto cancelled = [](int id) {
    return std::make_pair(id, static_cast<int>(absl::StatusCode::kCancelled));
  };
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(3)));
  batcher_->BatchDone(1, absl::Milliseconds(1));
  batcher_->BatchDone(1, absl::Milliseconds(1));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(3), ElementsAre(6)));
  absl::MutexLock lock(&mutex_);
  EXPECT_THAT(answers_, ElementsAre(cancelled(2), cancelled(4), cancelled(5)));
}

TEST_F(LayerBatcherTest, AQueueOfCallersThatWentAwayMakesNoBatch) {
  Make({.max_queue_delay = absl::Seconds(1)});
  const auto gone = std::make_shared<CallContext>(CallContext::Caller());
  ASSERT_TRUE(batcher_->Add(Job(1, 1, clock_.Now() + absl::Seconds(2), gone)).ok());
  gone->Cancel();
  clock_.Advance(absl::Seconds(1));
  {
    absl::MutexLock lock(&mutex_);
    const auto answered = [this]()
                              ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !answers_.empty(); };
    mutex_.Await(absl::Condition(&answered));
  }
  // It is an idle layer still.
  ASSERT_TRUE(batcher_->Add(Job(2, 1)).ok());
  clock_.Advance(absl::Seconds(1));
  AwaitBatches(1);
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(2)));
}

TEST_F(LayerBatcherTest, StoppingWaitsForATimerThatIsDispatching) {
  absl::Notification dispatching;
  absl::Notification dispatched;
  std::atomic<bool> stopped = false;
  std::atomic<bool> stopped_first = false;
  LayerBatcher batcher({.max_queue_delay = absl::Seconds(1)}, &clock_, &timers_,
                       [&](const std::vector<ForwardJobPtr>&) {
                         dispatching.Notify();
                         // Time enough for a stop that does not wait.
                         for (int i = 0; i < 20'000 && !stopped; ++i) {
                           std::this_thread::yield();
                         }
                         stopped_first = stopped.load();
                         dispatched.Notify();
                       });
  ASSERT_TRUE(batcher.Add(Job(1, 1)).ok());
  clock_.Advance(absl::Seconds(1));
  dispatching.WaitForNotification();
  batcher.Stop();
  stopped = true;
  dispatched.WaitForNotification();
  EXPECT_FALSE(stopped_first);
}

TEST_F(LayerBatcherTest, StoppingFailsWhatWaitsAndWhatComes) {
  Make({.max_queue_delay = absl::Seconds(1)});
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());
  batcher_->Stop();
  EXPECT_EQ(batcher_->Add(Job(2, 1)).code(), absl::StatusCode::kUnavailable);
  absl::MutexLock lock(&mutex_);
  EXPECT_THAT(answers_,
              ElementsAre(std::make_pair(1, static_cast<int>(absl::StatusCode::kUnavailable))));
  EXPECT_THAT(batches_, IsEmpty());
}

}  // namespace
}  // namespace expertmesh::batch
