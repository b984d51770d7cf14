#include "router_service/layer_batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/synchronization/mutex.h"

namespace expertmesh {
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
                                                  ids.push_back(job->request.request_id());
                                                }
                                                batches_.push_back(ids);
                                              });
  }

  ForwardJobPtr Job(uint64_t id, uint64_t rows, absl::Time deadline = absl::InfiniteFuture(),
                    bool extension = false) {
    v1::ForwardRequest request;
    request.set_request_id(id);
    if (extension) {
      (*request.mutable_extensions())["acme.x"].set_raw("1");
    }
    return std::make_shared<ForwardJob>(
        std::move(request), TensorFrame{DType::kF32, rows, 1, {}}, DType::kF32, clock_.Now(),
        deadline, &timers_, [this](v1::ForwardResponse response, std::optional<TensorFrame>) {
          absl::MutexLock lock(&mutex_);
          answers_.emplace_back(response.request_id(), response.status().code());
        });
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
  batcher_->BatchDone(absl::Milliseconds(1));
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

TEST_F(LayerBatcherTest, TheEarliestDeadlineLessTheServiceTimeClosesABatch) {
  Make({});
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());
  batcher_->BatchDone(absl::Milliseconds(10));  // What a batch of this layer takes.
  ASSERT_TRUE(batcher_->Add(Job(2, 1)).ok());   // In flight from here on.
  ASSERT_TRUE(batcher_->Add(Job(3, 1)).ok());
  ASSERT_TRUE(batcher_->Add(Job(4, 1, clock_.Now() + absl::Milliseconds(50))).ok());
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2)));
  clock_.Advance(absl::Milliseconds(39));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2)));
  clock_.Advance(absl::Milliseconds(1));
  AwaitBatches(3);
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3, 4)));
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
  batcher_->BatchDone(absl::Milliseconds(1));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(1), ElementsAre(3)));
}

TEST_F(LayerBatcherTest, RequestsWithExtensionsAreNotMixed) {
  Make({});
  ASSERT_TRUE(batcher_->Add(Job(1, 1)).ok());
  ASSERT_TRUE(batcher_->Add(Job(2, 1)).ok());
  ASSERT_TRUE(batcher_->Add(Job(3, 1, absl::InfiniteFuture(), true)).ok());
  ASSERT_TRUE(batcher_->Add(Job(4, 1)).ok());
  for (int i = 0; i < 3; ++i) {
    batcher_->BatchDone(absl::Milliseconds(1));
  }
  EXPECT_THAT(batches(),
              ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3), ElementsAre(4)));
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
}  // namespace expertmesh
