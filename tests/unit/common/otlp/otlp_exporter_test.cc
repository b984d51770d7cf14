// What is sent together and when, and what there is no room for.
#include "common/otlp/otlp_exporter.h"

#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/scripted_trace_service.h"

namespace expertmesh::otlp {
namespace {

using ::testing::ElementsAre;

class OtlpExporterTest : public ExporterTest {};

TEST_F(OtlpExporterTest, AFullBatchIsSentAtOnce) {
  Add(4);
  Add(6);
  AwaitCalls(1);
  EXPECT_EQ(script_->SpansOf(0), 10);
  EXPECT_EQ(script_->calls()[0].timeout, options_.timeout);
  AwaitOutcome(10);
  EXPECT_EQ(counts().exported, 10u);
  EXPECT_EQ(counts().requests, 1u);
  EXPECT_EQ(counts().retries, 0u);
  EXPECT_EQ(counts().queue_spans, 0u);
  EXPECT_EQ(counts().queue_bytes, 0u);
}

TEST_F(OtlpExporterTest, TheSpanThatFillsABatchWakesTheThread) {
  script_->ThenHang();
  Add(10);
  AwaitCalls(1);
  Add(4);
  script_->Finish(0, Frame());
  AwaitOutcome(10);
  Settle();  // For the delay of the four.
  Add(6);
  AwaitCalls(2);
  EXPECT_EQ(script_->SpansOf(1), 10);
}

TEST_F(OtlpExporterTest, OthersWaitForTheDelayOfTheOldest) {
  exporter();
  Settle();
  Add(1);
  clock_.Advance(absl::Seconds(3));
  ExpectCallsStay(0);
  EXPECT_EQ(counts().queue_spans, 1u);
  EXPECT_GT(counts().queue_bytes, 0u);
  Add(2);
  clock_.Advance(absl::Milliseconds(1999));
  ExpectCallsStay(0);
  clock_.Advance(absl::Milliseconds(1));
  AwaitCalls(1);
  EXPECT_EQ(script_->SpansOf(0), 3);
  // Those that come later wait as long again.
  AwaitOutcome(3);
  Settle();
  Add(1);
  clock_.Advance(absl::Milliseconds(4999));
  ExpectCallsStay(1);
  clock_.Advance(absl::Milliseconds(1));
  AwaitCalls(2);
}

TEST_F(OtlpExporterTest, RequestsHaveNoMoreSpansThanABatchWhateverTheGroups) {
  Add(25);
  clock_.Advance(options_.schedule_delay);
  AwaitOutcome(25);
  EXPECT_THAT((std::vector<int>{script_->SpansOf(0), script_->SpansOf(1), script_->SpansOf(2)}),
              ElementsAre(10, 10, 5));
  EXPECT_EQ(script_->call_count(), 3u);
  EXPECT_EQ(counts().exported, 25u);
}

TEST_F(OtlpExporterTest, RequestsHaveNoMoreBytesThanABatch) {
  options_.max_batch_spans = 1000;
  options_.max_queue_spans = 1000;
  options_.max_batch_bytes = 4000;
  const trace::SpanGroup group = SpansLike(resource_, 40, 500);
  exporter().Add({&group, 1});
  clock_.Advance(options_.schedule_delay);
  AwaitOutcome(40);
  EXPECT_EQ(counts().exported, 40u);
  EXPECT_GE(script_->call_count(), 5u);
  EXPECT_LE(script_->call_count(), 8u);
  for (const auto& call : script_->calls()) {
    EXPECT_LE(call.request.size(), 4000u);
  }
}

TEST_F(OtlpExporterTest, SpansArriveAsTheyWereMadeWithTheResourceOfTheirProcess) {
  const auto node =
      std::make_shared<trace::Resource>(trace::TextAttributes{{"service.name", "node"}});
  const std::vector<trace::SpanGroup> groups = {SpansLike(resource_, 3), SpansLike(node, 2),
                                                SpansLike(resource_, 5)};
  exporter().Add(groups);
  AwaitCalls(1);
  const internal::otlp::TracesData data = script_->Request(0);
  ASSERT_EQ(data.resource_spans_size(), 2);
  EXPECT_EQ(data.resource_spans(0).resource().attributes(0).value().string_value(), "router");
  EXPECT_EQ(data.resource_spans(1).resource().attributes(0).value().string_value(), "node");
  internal::otlp::ScopeSpans sent;
  ASSERT_TRUE(sent.ParseFromString(groups[0].bytes + groups[2].bytes));
  ASSERT_EQ(data.resource_spans(0).scope_spans(0).spans_size(), 8);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(data.resource_spans(0).scope_spans(0).spans(i).SerializeAsString(),
              sent.spans(i).SerializeAsString());
  }
}

TEST_F(OtlpExporterTest, OneRequestAtATime) {
  script_->ThenHang();
  Add(10);
  AwaitCalls(1);
  Add(10);
  Add(10);
  ExpectCallsStay(1);
  EXPECT_EQ(counts().queue_spans, 20u);
  clock_.Advance(absl::Seconds(1));
  script_->Finish(0, Frame());
  AwaitOutcome(30);
  EXPECT_EQ(script_->call_count(), 3u);
  EXPECT_EQ(counts().exported, 30u);
  EXPECT_EQ(counts().export_nanos, 1'000'000'000u);
}

TEST_F(OtlpExporterTest, WhenThereIsNoRoomTheNewestAreDropped) {
  script_->ThenHang();
  Add(10);
  AwaitCalls(1);
  for (int i = 0; i < 10; ++i) {
    Add(9);
  }
  Add(20);  // 90 wait, in pieces of at most 10: one of these finds room.
  EXPECT_EQ(counts().queue_spans, 100u);
  EXPECT_EQ(counts().Dropped(DropReason::kQueueFull), 10u);
  Add(1);
  EXPECT_EQ(counts().Dropped(DropReason::kQueueFull), 11u);
  script_->Finish(0, Frame());
  clock_.Advance(options_.schedule_delay);
  AwaitOutcome(121);
  EXPECT_EQ(counts().exported, 110u);
}

TEST_F(OtlpExporterTest, TheQueueIsBoundedInBytesToo) {
  options_.max_queue_spans = 1'000'000;
  options_.max_queue_bytes = 100'000;
  script_->ThenHang();
  Add(10);
  AwaitCalls(1);
  for (int i = 0; i < 1000; ++i) {
    const trace::SpanGroup group = SpansLike(resource_, 1, 1000);
    exporter().Add({&group, 1});
    EXPECT_LE(counts().queue_bytes, 100'000u);
  }
  EXPECT_GT(counts().queue_spans, 50u);
  EXPECT_EQ(counts().queue_spans + counts().Dropped(DropReason::kQueueFull), 1000u);
}

TEST_F(OtlpExporterTest, WhatCannotBeSentIsLeftOutAlone) {
  options_.max_batch_bytes = 2000;
  std::vector<trace::SpanGroup> groups = {SpansLike(resource_, 2), SpansLike(resource_, 3, 5000),
                                          SpansLike(resource_, 4), SpansLike(resource_, 5)};
  groups[2].bytes.resize(groups[2].bytes.size() - 1);  // As by a peer that is faulty.
  exporter().Add(groups);
  clock_.Advance(options_.schedule_delay);
  AwaitOutcome(14);
  EXPECT_EQ(counts().exported, 10u);
  EXPECT_EQ(counts().Dropped(DropReason::kTooLarge), 3u);
  EXPECT_EQ(counts().Dropped(DropReason::kMalformed), 1u);
  // Whatever it says of its number.
  trace::SpanGroup liar{resource_, "no spans", 0};
  exporter().Add({&liar, 1});
  EXPECT_EQ(counts().Dropped(DropReason::kMalformed), 2u);
}

TEST_F(OtlpExporterTest, ManyThreadsMayAdd) {
  options_.max_queue_spans = 1000;
  std::vector<std::thread> threads;
  exporter();
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      for (int k = 0; k < 500; ++k) {
        Add(3);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(exporter().Shutdown(absl::InfiniteFuture()), 0u);
  EXPECT_EQ(counts().exported + counts().Dropped(DropReason::kQueueFull), 6000u);
  uint64_t received = 0;
  for (size_t i = 0; i < script_->call_count(); ++i) {
    received += static_cast<uint64_t>(script_->SpansOf(i));
  }
  EXPECT_EQ(received, counts().exported);
}

TEST(OtlpCountsTest, EachReasonHasItsName) {
  std::vector<std::string> names;
  for (const DropReason reason : kDropReasons) {
    names.push_back(NameOf(reason));
  }
  EXPECT_THAT(names, ElementsAre("queue_full", "refused", "retries_over", "too_large", "malformed",
                                 "shutdown", "partial"));
}

}  // namespace
}  // namespace expertmesh::otlp
