#include "common/transport/pending_calls.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "expertmesh/internal/v1/expert.pb.h"
#include "tests/support/call_result.h"

namespace expertmesh {
namespace {

TEST(PendingCallsTest, ACallEndsOnceWhoeverEndsIt) {
  constexpr int kCalls = 2000;
  PendingCalls calls;
  std::atomic<int> ended{0};
  std::vector<uint64_t> ids;
  std::vector<CallResult<Frame>> results(kCalls);
  for (CallResult<Frame>& result : results) {
    ids.push_back(calls.Add([&ended, done = result.done()](absl::StatusOr<Frame> answer) mutable {
      ++ended;
      done(std::move(answer));
    }));
  }
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&calls, &ids] {
      for (const uint64_t id : ids) {
        calls.End(id, Frame("an answer"));
      }
    });
  }
  threads.emplace_back([&calls] { calls.EndAll(absl::UnavailableError("gone")); });
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(ended, kCalls);
}

TEST(PendingCallsTest, WhatWorksForACallIsAbandonedUnlessItWasAnswered) {
  PendingCalls calls;
  bool answered_abandoned = false;
  bool lost_abandoned = false;
  const uint64_t answered = calls.Add([](const absl::StatusOr<Frame>&) {});
  calls.OnAbandon(answered, [&] { answered_abandoned = true; });
  const uint64_t lost = calls.Add([](const absl::StatusOr<Frame>&) {});
  calls.OnAbandon(lost, [&] { lost_abandoned = true; });
  calls.End(answered, Frame("an answer"));
  EXPECT_FALSE(answered_abandoned);
  calls.EndAll(absl::UnavailableError("gone"));
  EXPECT_TRUE(lost_abandoned);
  bool late_abandoned = false;
  calls.OnAbandon(lost, [&] { late_abandoned = true; });
  EXPECT_TRUE(late_abandoned);
}

TEST(PendingCallsTest, CloseWaitsForACallbackThatRuns) {
  PendingCalls calls;
  absl::Mutex mutex;
  bool inside = false;
  bool may_end = false;
  std::atomic<bool> over{false};
  const uint64_t id = calls.Add([&](const absl::StatusOr<Frame>&) {
    absl::MutexLock lock(&mutex);
    inside = true;
    mutex.Await(absl::Condition(&may_end));
    over = true;
  });
  std::thread answer([&] { calls.End(id, Frame("an answer")); });
  {
    absl::MutexLock lock(&mutex);
    mutex.Await(absl::Condition(&inside));
  }
  std::thread close([&] {
    calls.Close(absl::UnavailableError("closed"));
    EXPECT_TRUE(over);
  });
  {
    absl::MutexLock lock(&mutex);
    may_end = true;
  }
  close.join();
  answer.join();
}

TEST(PendingCallsTest, AnAnswerThatIsNoneIsAnError) {
  CallResult<internal::v1::LoadExpertsResponse> result;
  PendingCalls::Done done = ParsedFor<internal::v1::LoadExpertsResponse>(result.done());
  done(Frame("\xff\xff\xff"));
  EXPECT_EQ(result.Await().status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace expertmesh
