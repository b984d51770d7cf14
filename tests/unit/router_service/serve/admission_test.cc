#include "router_service/serve/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <deque>
#include <memory>

#include "common/wire/error_reason.h"

namespace expertmesh::serve {
namespace {

using testing::HasSubstr;

// What stands behind the door: serves in order of arrival, so many tokens a millisecond. What is
// late before its turn is left out, and what is late then is served for nothing; both callers got
// DEADLINE_EXCEEDED.
class AdmissionTest : public testing::Test {
 protected:
  struct Held {
    std::unique_ptr<batch::ForwardJob> job;
    absl::Time deadline;
    uint64_t left;
    bool late = false;
  };

  absl::Status Offer(uint64_t rows, absl::Duration deadline) {
    const absl::Time now = clock_.Now();
    const absl::Status status = admission_.Admit(rows, now, now + deadline);
    if (status.ok()) {
      auto job = std::make_unique<batch::ForwardJob>();
      job->received()->tensor.rows = rows;
      job->Accept(Dtype::kF32, now, now + deadline, nullptr, nullptr, nullptr, {});
      held_.push_back({std::move(job), now + deadline, rows});
      held_tokens_ += rows;
      most_held_ = std::max(most_held_, held_tokens_);
    }
    return status;
  }

  void Answer(const Held& held, absl::StatusCode code) {
    admission_.OnAnswer(*held.job, code);
    admission_.OnAnswered();
    held_tokens_ -= held.job->rows();
  }

  // One millisecond.
  void Serve(uint64_t tokens) {
    clock_.Advance(absl::Milliseconds(1));
    for (Held& held : held_) {
      if (!held.late && held.deadline <= clock_.Now()) {
        held.late = true;
        ++late_;
        Answer(held, absl::StatusCode::kDeadlineExceeded);
      }
    }
    while (tokens > 0 && !held_.empty()) {
      Held& next = held_.front();
      if (next.late && next.left == next.job->rows()) {
        held_.pop_front();
        continue;
      }
      const uint64_t part = std::min(tokens, next.left);
      tokens -= part;
      next.left -= part;
      if (next.left == 0) {
        if (!next.late) {
          served_ += next.job->rows();
          Answer(next, absl::StatusCode::kOk);
        }
        held_.pop_front();
      }
    }
  }

  // For so many milliseconds requests of `rows` come, three times as many as are served.
  void Overload(int milliseconds, uint64_t rows, uint64_t tokens_per_ms, absl::Duration deadline) {
    uint64_t offered = 0;
    for (int i = 0; i < milliseconds; ++i) {
      for (offered += 3 * tokens_per_ms; offered >= rows; offered -= rows) {
        Offer(rows, deadline).IgnoreError();
      }
      Serve(tokens_per_ms);
    }
  }

  FakeClock clock_;
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  Admission admission_{
      {.most_tokens = 262144, .least_tokens = 16384, .queue_time = absl::Seconds(1)},
      &metrics_,
      nullptr,
      &clock_};
  std::deque<Held> held_;
  uint64_t held_tokens_ = 0;
  uint64_t most_held_ = 0;
  uint64_t served_ = 0;
  uint64_t late_ = 0;  // Requests.
};

TEST_F(AdmissionTest, ThreeTimesAsMuchAsCanBeServedIsServedAsFarAsItCanBeInTime) {
  Overload(500, 64, 50, absl::Seconds(1));  // The first requests come before there is a rate.
  served_ = late_ = most_held_ = 0;
  Overload(10'000, 64, 50, absl::Seconds(1));
  EXPECT_EQ(late_, 0u);
  EXPECT_GE(served_, 50u * 10'000 * 95 / 100);
  EXPECT_LE(most_held_, 50u * 1000);
}

TEST_F(AdmissionTest, ShortDeadlinesAndSmallRequestsAreKeptToo) {
  Overload(1000, 1, 1, absl::Milliseconds(50));
  served_ = late_ = 0;
  Overload(5000, 1, 1, absl::Milliseconds(50));
  EXPECT_LE(late_, 5000u / 50);
  EXPECT_GE(served_, 5000u * 9 / 10);
}

TEST_F(AdmissionTest, WhatHasTimeWaitsNoLongerThanTheQueueTime) {
  Overload(3000, 64, 100, absl::Minutes(1));
  EXPECT_LE(held_tokens_, 110'000u);
  EXPECT_GE(held_tokens_, 90'000u);
}

TEST_F(AdmissionTest, AFewBatchesAreHeldHoweverSlowlyTheyAreServed) {
  Overload(6000, 64, 2, absl::Minutes(1));
  EXPECT_GE(held_tokens_, 16'000u);
  EXPECT_LE(held_tokens_, 16'384u + 64);
}

TEST_F(AdmissionTest, CallersInAClosedLoopAreNeverRefused) {
  // 64 callers ask again as soon as they are answered, with time for about two rounds of that.
  for (int i = 0; i < 64; ++i) {
    ASSERT_TRUE(Offer(64, absl::Milliseconds(250)).ok());
  }
  for (int i = 0; i < 5000; ++i) {
    const size_t before = held_.size();
    Serve(50);
    for (size_t back = held_.size(); back < before; ++back) {
      ASSERT_TRUE(Offer(64, absl::Milliseconds(250)).ok()) << i;
    }
  }
  EXPECT_EQ(late_, 0u);
}

TEST_F(AdmissionTest, ALargeRequestAfterSmallOnesIsAccepted) {
  ASSERT_TRUE(Offer(1, absl::Seconds(1)).ok());
  for (int i = 0; i < 1000; ++i) {  // Always one or two are held, and one is served each 2 ms.
    ASSERT_TRUE(Offer(1, absl::Seconds(1)).ok());
    clock_.Advance(absl::Milliseconds(1));
    Serve(1);
  }
  EXPECT_TRUE(Offer(8192, absl::Seconds(1)).ok());
}

TEST_F(AdmissionTest, WhenNothingIsHeldTheNextIsAcceptedSoThatARateOfNothingIsNotForEver) {
  Overload(3000, 64, 50, absl::Seconds(1));
  for (int i = 0; i < 5000; ++i) {  // The nodes are gone.
    Offer(64, absl::Milliseconds(300)).IgnoreError();
    Serve(0);
  }
  while (held_tokens_ > 0) {
    Serve(0);
  }
  held_.clear();
  EXPECT_TRUE(Offer(64, absl::Milliseconds(300)).ok());
  served_ = 0;
  Overload(6000, 64, 50, absl::Milliseconds(300));
  EXPECT_GE(served_, 50u * 6000 / 2) << "they are back";
}

TEST_F(AdmissionTest, ARefusalSaysWhenToComeBack) {
  Overload(1000, 64, 50, absl::Seconds(1));
  absl::Status refused = absl::OkStatus();
  while (refused.ok()) {
    refused = Offer(64, absl::Seconds(1));
  }
  EXPECT_EQ(ReasonOf(refused), v1::ERROR_REASON_QUEUE_FULL);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("overloaded"));
  EXPECT_EQ(DetailsOf(refused).retry_delay, absl::Milliseconds(20));
  refused = Offer(5000, absl::Seconds(1));  // Takes 100 ms more than there is room for.
  EXPECT_GE(DetailsOf(refused).retry_delay, absl::Milliseconds(80));
  EXPECT_LE(DetailsOf(refused).retry_delay, absl::Milliseconds(150));
}

}  // namespace
}  // namespace expertmesh::serve
