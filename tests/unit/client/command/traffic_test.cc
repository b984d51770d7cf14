#include "client/cpp/command/traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "absl/time/clock.h"

namespace expertmesh::command {
namespace {

using Done = std::function<void(absl::Status)>;

TEST(TrafficTest, EveryCallerSendsItsRequestsInTurn) {
  std::mutex mutex;
  std::multiset<std::pair<size_t, uint64_t>> seen;
  TrafficOptions options;
  options.callers = 3;
  options.requests = 4;
  int answered = 0;
  const TrafficReport report = RunTraffic(
      options,
      [&](size_t caller, uint64_t index, const Done& done) {
        {
          const std::lock_guard<std::mutex> lock(mutex);
          seen.emplace(caller, index);
        }
        done(absl::OkStatus());
      },
      [&] {
        const std::lock_guard<std::mutex> lock(mutex);
        ++answered;
      });
  EXPECT_TRUE(report.status.ok());
  EXPECT_EQ(report.latencies_us.size(), 12u);
  EXPECT_EQ(answered, 12);
  EXPECT_EQ(seen.size(), 12u);
  EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), 12u);
  EXPECT_GT(report.seconds, 0);
}

TEST(TrafficTest, AClosedLoopStopsAtAnError) {
  TrafficOptions options;
  options.requests = 100;
  int sent = 0;
  const TrafficReport report = RunTraffic(
      options,
      [&](size_t, uint64_t index, const Done& done) {
        ++sent;
        done(index == 2 ? absl::UnavailableError("gone") : absl::OkStatus());
      },
      nullptr);
  EXPECT_EQ(report.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sent, 3);
  EXPECT_EQ(report.failed, 1u);
  EXPECT_EQ(report.latencies_us.size(), 2u);
}

// The sender is held up by the second request. Those behind it were meant to go out meanwhile.
TEST(TrafficTest, AnOpenLoopCountsFromTheTimeThatWasMeant) {
  constexpr absl::Duration kStall = absl::Milliseconds(50);
  TrafficOptions options;
  options.rate = 1000;
  options.requests = 30;
  const TrafficReport report = RunTraffic(
      options,
      [&](size_t, uint64_t index, const Done& done) {
        if (index == 1) {
          absl::SleepFor(kStall);
        }
        done(absl::OkStatus());
      },
      nullptr);
  ASSERT_EQ(report.latencies_us.size(), 30u);
  // Request 1 + n waits for about the stall less n ms.
  const auto late = std::count_if(report.latencies_us.begin(), report.latencies_us.end(),
                                  [](double us) { return us > 15000; });
  EXPECT_GE(late, 29);
  EXPECT_THAT(report.latencies_us, testing::Contains(testing::Gt(49000)));
}

TEST(TrafficTest, AnOpenLoopGoesOnAfterErrorsAndWaitsForAllAnswers) {
  TrafficOptions options;
  options.rate = 2000;
  options.duration = absl::Milliseconds(20);
  std::vector<std::thread> answering;
  const TrafficReport report = RunTraffic(
      options,
      [&](size_t, uint64_t index, const Done& done) {
        answering.emplace_back([index, done] {
          absl::SleepFor(absl::Milliseconds(5));
          done(index % 4 == 0 ? absl::ResourceExhaustedError("full") : absl::OkStatus());
        });
      },
      nullptr);
  for (std::thread& thread : answering) {
    thread.join();
  }
  EXPECT_EQ(report.failed, 10u);
  EXPECT_EQ(report.latencies_us.size(), 30u);
  EXPECT_EQ(report.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(*std::min_element(report.latencies_us.begin(), report.latencies_us.end()), 5000);
}

}  // namespace
}  // namespace expertmesh::command
