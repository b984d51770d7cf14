// What becomes of spans that the collector does not take.
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <sstream>

#include "common/otlp/otlp_exporter.h"
#include "common/wire/error_reason.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/scripted_trace_service.h"

namespace expertmesh::otlp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Frame Partial(int64_t rejected, const std::string& message) {
  internal::otlp::ExportTraceServiceResponse response;
  response.mutable_partial_success()->set_rejected_spans(rejected);
  response.mutable_partial_success()->set_error_message(message);
  return Frame(response.SerializeAsString());
}

size_t CountOf(const std::string& part, const std::string& text) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

class OtlpExporterRetryTest : public ExporterTest {
 protected:
  OtlpExporterRetryTest()
      : before_(spdlog::default_logger()),
        sink_(std::make_shared<spdlog::sinks::ostream_sink_mt>(log_)) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", sink_));
  }
  ~OtlpExporterRetryTest() override {
    exporter_.reset();
    spdlog::set_default_logger(before_);
  }

  // Ends the exporter: what it logged.
  std::string Log() {
    exporter_.reset();
    return log_.str();
  }

  const std::shared_ptr<spdlog::logger> before_;
  std::ostringstream log_;
  const std::shared_ptr<spdlog::sinks::ostream_sink_mt> sink_;
};

TEST_F(OtlpExporterRetryTest, WhatMayBeSentAgainIs) {
  size_t calls = 0;
  for (const int code : {1, 4, 10, 11, 14, 15}) {
    script_->Then(absl::Status(static_cast<absl::StatusCode>(code), "not now"));
    Add(10);
    PassPauseAfter(calls + 1, Backoff::kFirst);
    calls += 2;
    AwaitCalls(calls);
    EXPECT_EQ(script_->calls()[calls - 1].request, script_->calls()[calls - 2].request) << code;
  }
  EXPECT_EQ(exporter().Shutdown(absl::InfiniteFuture()), 0u);
  EXPECT_EQ(counts().exported, 60u);
  EXPECT_EQ(counts().AllDropped(), 0u);
  EXPECT_EQ(counts().requests, 12u);
  EXPECT_EQ(counts().retries, 6u);
}

TEST_F(OtlpExporterRetryTest, WhatMayNotBeSentAgainIsDroppedAndTheNextSentAtOnce) {
  options_.max_queue_spans = 1000;
  uint64_t refused = 0;
  for (const int code : {2, 3, 5, 6, 7, 8, 9, 12, 13, 16}) {
    script_->Then(absl::Status(static_cast<absl::StatusCode>(code), "never"));
    Add(10);
    refused += 10;
  }
  Add(10);
  AwaitCalls(11);  // And time stands still.
  EXPECT_EQ(exporter().Shutdown(absl::InfiniteFuture()), 0u);
  EXPECT_EQ(counts().Dropped(DropReason::kRefused), refused);
  EXPECT_EQ(counts().exported, 10u);
  EXPECT_EQ(counts().retries, 0u);
}

TEST_F(OtlpExporterRetryTest, ThePauseIsWhatTheCollectorAsksFor) {
  script_->Then(WithRetryDelay(absl::ResourceExhaustedError("full"), absl::Seconds(7)));
  Add(10);
  AwaitCalls(1);
  Settle();
  clock_.Advance(absl::Milliseconds(6999));
  ExpectCallsStay(1);
  clock_.Advance(absl::Milliseconds(1));
  AwaitCalls(2);
}

TEST_F(OtlpExporterRetryTest, ACollectorMayNotAskForEver) {
  script_->Then(WithRetryDelay(absl::UnavailableError("full"), absl::Hours(1)));
  Add(10);
  Add(10);
  AwaitCalls(1);
  // The first batch has no time for that pause; the second waits it out.
  Settle();
  clock_.Advance(kMostRetryDelay - absl::Milliseconds(1));
  ExpectCallsStay(1);
  EXPECT_EQ(counts().Dropped(DropReason::kRetriesOver), 10u);
  clock_.Advance(absl::Milliseconds(1));
  AwaitCalls(2);
}

TEST_F(OtlpExporterRetryTest, PausesGrowAndSoLongAsTheyLastNothingElseIsSent) {
  script_->Always(absl::UnavailableError("gone"));
  Add(10);
  Add(10);
  absl::Duration most = Backoff::kFirst;
  for (size_t attempt = 1; attempt <= 4; ++attempt) {
    AwaitCalls(attempt);
    Settle();
    clock_.Advance(most / 2 - absl::Milliseconds(1));
    ExpectCallsStay(attempt);
    clock_.Advance(most / 2 + absl::Milliseconds(1));
    most = 2 * most;
  }
  AwaitCalls(5);
}

TEST_F(OtlpExporterRetryTest, AttemptsAreBounded) {
  options_.export_timeout = absl::Hours(1);
  script_->Always(absl::UnavailableError("gone"));
  Add(10);
  for (int attempt = 1; attempt < OtlpExporter::kMostAttempts; ++attempt) {
    PassPauseAfter(static_cast<size_t>(attempt), Backoff::kMost);
  }
  AwaitOutcome(10);
  EXPECT_EQ(counts().Dropped(DropReason::kRetriesOver), 10u);
  EXPECT_EQ(script_->call_count(), static_cast<size_t>(OtlpExporter::kMostAttempts));
  EXPECT_EQ(counts().retries, static_cast<uint64_t>(OtlpExporter::kMostAttempts - 1));
  // The next batch is not sent before the pause is over, either.
  Add(10);
  ExpectCallsStay(static_cast<size_t>(OtlpExporter::kMostAttempts));
  PassPauseAfter(OtlpExporter::kMostAttempts, Backoff::kMost);
  AwaitCalls(OtlpExporter::kMostAttempts + 1);
}

TEST_F(OtlpExporterRetryTest, ABatchHasItsTimeAndNoMore) {
  options_.export_timeout = absl::Seconds(3);
  script_->Always(absl::UnavailableError("gone"));
  Add(10);
  PassPauseAfter(1, Backoff::kFirst);
  // The third attempt is at 2.9 s: the shortest pause after it ends too late.
  PassPauseAfter(2, absl::Milliseconds(2400));
  AwaitOutcome(10);
  EXPECT_EQ(counts().Dropped(DropReason::kRetriesOver), 10u);
  EXPECT_EQ(script_->call_count(), 3u);
}

TEST_F(OtlpExporterRetryTest, ACallWithoutAnAnswerIsGivenUp) {
  script_->ThenHang();
  Add(10);
  AwaitCalls(1);
  Settle();
  clock_.Advance(options_.timeout - absl::Milliseconds(1));
  Settle();
  EXPECT_EQ(script_->cancelled(), 0);
  clock_.Advance(absl::Milliseconds(1));
  ASSERT_TRUE(script_->AwaitCancelled(1));
  script_->ThenHang();
  Settle();
  clock_.Advance(Backoff::kFirst);
  AwaitCalls(2);
  // The answer to the first comes now, and is not taken for that to the second.
  script_->Finish(0, Frame());
  Settle();
  EXPECT_EQ(counts().exported, 0u);
  script_->Finish(1, Frame());
  EXPECT_EQ(exporter().Shutdown(absl::InfiniteFuture()), 0u);
  EXPECT_EQ(counts().exported, 10u);
}

TEST_F(OtlpExporterRetryTest, RejectedSpansAreCountedAndNotSentAgain) {
  script_->Then(Partial(3, "too old\n\xff"));
  script_->Then(Partial(1, "too old"));
  script_->Then(Partial(0, "only a warning"));
  script_->Then(Partial(1000, ""));
  script_->Then(Partial(-5, ""));
  script_->Then(Frame("no response"));
  for (int i = 0; i < 6; ++i) {
    Add(10);
  }
  AwaitOutcome(60);
  EXPECT_EQ(counts().Dropped(DropReason::kPartial), 14u);
  EXPECT_EQ(counts().exported, 46u);
  EXPECT_EQ(counts().requests, 6u);
}

TEST_F(OtlpExporterRetryTest, TheLogSaysItNowAndThen) {
  for (int i = 0; i < 3; ++i) {
    script_->Then(Partial(1, "too old"));
  }
  for (int i = 0; i < 3; ++i) {
    script_->Then(absl::UnauthenticatedError("no token"));
  }
  for (int i = 0; i < 7; ++i) {
    Add(10);
  }
  AwaitCalls(7);
  exporter().Shutdown(absl::InfiniteFuture());
  const std::string log = Log();
  EXPECT_EQ(CountOf("too old", log), 1u) << log;
  EXPECT_EQ(CountOf("no token", log), 1u) << log;
  EXPECT_THAT(log, HasSubstr("sending 10 spans to collector:4317 failed"));
  EXPECT_THAT(log, HasSubstr("UNAUTHENTICATED"));
  EXPECT_THAT(log, HasSubstr("takes spans again"));
  EXPECT_EQ(CountOf("dropped since", log), 1u) << log;
}

TEST_F(OtlpExporterRetryTest, HeadersStayOutOfTheLog) {
  options_.headers = {{"authorization", "secret"}};
  script_->Then(absl::UnauthenticatedError("no token"));
  Add(10);
  AwaitCalls(1);
  EXPECT_THAT(Log(), Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace expertmesh::otlp
