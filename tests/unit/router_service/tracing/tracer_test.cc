#include "router_service/tracing/tracer.h"

#include "gtest/gtest.h"
#include "tests/support/span_recorder.h"

namespace expertmesh::tracing {
namespace {

constexpr char kParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

class TracerTest : public testing::Test {
 protected:
  static std::shared_ptr<TraceRecord> Record(Tracer* tracer) {
    std::shared_ptr<TraceRecord> record = tracer->TakeRecord();
    record->batch_requests = 1;
    RequestRecord& request = record->requests.emplace_back();
    request.span = tracer->Begin("", "").span;
    return record;
  }

  FakeClock clock_;
  SpanRecorder recorder_;
};

TEST_F(TracerTest, AParentIsContinued) {
  const Tracer tracer({}, nullptr, &clock_);
  for (const char* flags : {"0", "1", "2", "3"}) {
    const RequestTrace begun = tracer.Begin(std::string(kParent) + flags, "a=1");
    EXPECT_EQ(begun.parent.span_id, 0x00f067aa0ba902b7u);
    EXPECT_EQ(begun.span.trace_id, begun.parent.trace_id);
    EXPECT_NE(begun.span.span_id, begun.parent.span_id);
    EXPECT_EQ(begun.span.flags, flags[0] - '0');
    EXPECT_EQ(begun.tracestate, "a=1");
  }
}

TEST_F(TracerTest, WithoutOneATraceBegins) {
  const Tracer tracer({}, nullptr, &clock_);
  const RequestTrace begun = tracer.Begin("no context", "a=1");
  EXPECT_FALSE(begun.parent.valid());
  EXPECT_TRUE(begun.span.valid());
  EXPECT_NE(begun.span.flags & trace::kRandomFlag, 0);
  EXPECT_NE(begun.tracestate, "a=1");  // It belongs to a traceparent that is none.
}

TEST_F(TracerTest, ANewTraceTellsAThresholdWhenItIsSampled) {
  TracerOptions options;
  options.keep.ratio = 1;
  const Tracer all(options, nullptr, &clock_);
  const RequestTrace kept = all.Begin("", "");
  EXPECT_TRUE(kept.span.sampled());
  EXPECT_EQ(kept.tracestate.substr(0, 6), "ot=th:");
  options.keep.ratio = 0;
  const Tracer none(options, nullptr, &clock_);
  const RequestTrace left = none.Begin("", "");
  EXPECT_FALSE(left.span.sampled());
  EXPECT_EQ(left.tracestate, "");
}

TEST_F(TracerTest, WhatAParentSaysOfSamplingMayBeLeftAlone) {
  TracerOptions options;
  options.keep.parent_based = false;
  options.keep.ratio = 1;
  const Tracer all(options, nullptr, &clock_);
  options.keep.ratio = 0;
  const Tracer none(options, nullptr, &clock_);
  const RequestTrace kept = all.Begin(std::string(kParent) + "0", "a=1");
  EXPECT_TRUE(kept.span.sampled());
  // The trace is not new here: what others say of it stays.
  EXPECT_EQ(kept.tracestate, "a=1");
  EXPECT_FALSE(none.Begin(std::string(kParent) + "1", "").span.sampled());
}

TEST_F(TracerTest, SpansAreMadeWithoutBeingAskedFor) {
  {
    Tracer tracer({}, &recorder_, &clock_);
    tracer.Add(Record(&tracer));
  }
  EXPECT_EQ(recorder_.spans().size(), 1u);
}

TEST_F(TracerTest, NotesWaitForCompanyButNotLong) {
  Tracer tracer({}, &recorder_, &clock_);
  tracer.Add(Record(&tracer));
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Milliseconds(20));
  while (recorder_.spans().empty()) {
    std::this_thread::yield();
  }
  EXPECT_EQ(tracer.counts().spans, 1u);
}

TEST_F(TracerTest, WhatThereIsNoRoomForIsDroppedAndCounted) {
  TracerOptions options;
  options.max_waiting = 10;
  {
    Tracer tracer(options, &recorder_, &clock_);
    uint64_t added = 0;
    while (tracer.counts().dropped_full == 0) {
      tracer.Add(Record(&tracer));
      ++added;
    }
    tracer.Flush();
    // The tracer's own thread may be at one of them still.
    while (tracer.counts().spans + tracer.counts().dropped_full < added) {
      std::this_thread::yield();
    }
    EXPECT_EQ(tracer.counts().spans + tracer.counts().dropped_full, added);
  }
}

}  // namespace
}  // namespace expertmesh::tracing
