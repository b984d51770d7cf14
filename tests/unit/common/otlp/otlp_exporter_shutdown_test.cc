// The end: what waits is sent if the collector lets it, and nothing is waited for beyond the bound.
#include <thread>

#include "absl/synchronization/notification.h"
#include "common/otlp/otlp_exporter.h"
#include "gtest/gtest.h"
#include "tests/support/scripted_trace_service.h"

namespace expertmesh::otlp {
namespace {

class OtlpExporterShutdownTest : public ExporterTest {
 protected:
  // Shutdown with `left` on another thread, while this one moves time on.
  class Ending {
   public:
    Ending(OtlpExporter* exporter, absl::Time deadline)
        : thread_([this, exporter, deadline] {
            lost_ = exporter->Shutdown(deadline);
            over_.Notify();
          }) {}
    ~Ending() { thread_.join(); }
    bool over() const { return over_.HasBeenNotified(); }
    uint64_t Await() {
      EXPECT_TRUE(over_.WaitForNotificationWithTimeout(kTooLong));
      return lost_;
    }

   private:
    uint64_t lost_ = 0;
    absl::Notification over_;
    std::thread thread_;
  };
};

TEST_F(OtlpExporterShutdownTest, SendsAllThatWaitsInBatches) {
  Add(7);
  Add(8);
  Add(5);
  Add(1);
  EXPECT_EQ(exporter().Shutdown(clock_.Now() + absl::Seconds(1)), 0u);
  EXPECT_EQ(counts().exported, 21u);
  for (size_t i = 0; i < script_->call_count(); ++i) {
    EXPECT_LE(script_->SpansOf(i), 10);
  }
}

TEST_F(OtlpExporterShutdownTest, WaitsForTheRequestUnderWay) {
  script_->ThenHang();
  Add(10);
  Add(3);
  AwaitCalls(1);
  Ending ending(&exporter(), clock_.Now() + absl::Seconds(1));
  Settle();
  EXPECT_FALSE(ending.over());
  script_->Finish(0, Frame());
  EXPECT_EQ(ending.Await(), 0u);
  EXPECT_EQ(counts().exported, 13u);
}

TEST_F(OtlpExporterShutdownTest, EndsAtItsBoundWhateverTheCollectorDoes) {
  script_->Always(std::nullopt);
  Add(10);
  AwaitCalls(1);
  Add(10);
  Add(3);
  Ending ending(&exporter(), clock_.Now() + absl::Milliseconds(700));
  Settle();
  clock_.Advance(absl::Milliseconds(699));
  Settle();
  EXPECT_FALSE(ending.over());
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_EQ(ending.Await(), 23u);
  EXPECT_EQ(counts().Dropped(DropReason::kShutdown), 23u);
  EXPECT_EQ(script_->cancelled(), 1);
  EXPECT_EQ(counts().queue_spans, 0u);
}

TEST_F(OtlpExporterShutdownTest, ACallThatBeginsThenIsToldHowLongItMayTake) {
  script_->Always(std::nullopt);
  Add(3);
  Ending ending(&exporter(), clock_.Now() + absl::Milliseconds(700));
  AwaitCalls(1);
  EXPECT_EQ(script_->calls()[0].timeout, absl::Milliseconds(700));
  Settle();
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(ending.Await(), 3u);
}

TEST_F(OtlpExporterShutdownTest, APauseThatWouldLastLongerIsNotWaitedFor) {
  script_->Always(absl::UnavailableError("gone"));
  Add(10);
  Add(10);
  AwaitCalls(1);
  Settle();
  // Less than the shortest pause; and time stands still.
  EXPECT_EQ(exporter().Shutdown(clock_.Now() + Backoff::kFirst / 4), 20u);
  EXPECT_EQ(counts().Dropped(DropReason::kShutdown), 20u);
}

TEST_F(OtlpExporterShutdownTest, ACollectorThatComesBackInTimeGetsTheSpans) {
  script_->Then(absl::UnavailableError("gone"));
  Add(10);
  AwaitCalls(1);
  Settle();
  Ending ending(&exporter(), clock_.Now() + absl::Seconds(2));
  Settle();
  EXPECT_FALSE(ending.over());
  clock_.Advance(Backoff::kFirst);
  EXPECT_EQ(ending.Await(), 0u);
  EXPECT_EQ(counts().exported, 10u);
}

TEST_F(OtlpExporterShutdownTest, WithoutTimeNothingIsSent) {
  Add(3);
  EXPECT_EQ(exporter().Shutdown(clock_.Now()), 3u);
  EXPECT_EQ(script_->call_count(), 0u);
}

TEST_F(OtlpExporterShutdownTest, WhatComesLaterIsDropped) {
  Add(3);
  EXPECT_EQ(exporter().Shutdown(absl::InfiniteFuture()), 0u);
  Add(4);
  EXPECT_EQ(counts().Dropped(DropReason::kShutdown), 4u);
  EXPECT_EQ(counts().queue_spans, 0u);
  EXPECT_EQ(exporter().Shutdown(absl::InfiniteFuture()), 0u);
}

TEST_F(OtlpExporterShutdownTest, TheDestructorWaitsForNothingAndAnswersMayComeAfterIt) {
  script_->Always(std::nullopt);
  Add(10);
  AwaitCalls(1);
  exporter_.reset();
  EXPECT_EQ(script_->cancelled(), 1);
  script_->Finish(0, Frame());
}

}  // namespace
}  // namespace expertmesh::otlp
