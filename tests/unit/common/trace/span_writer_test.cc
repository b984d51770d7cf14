// What is written is read with code that protoc made.
#include "common/trace/span_writer.h"

#include <limits>

#include "common/trace/otlp.pb.h"
#include "gtest/gtest.h"

namespace expertmesh::trace {
namespace {

using internal::otlp::ScopeSpans;
using internal::otlp::Span;
using internal::otlp::TracesData;

const TraceContext kContext{{0x0102030405060708, 0x090a0b0c0d0e0f10}, 0x1112131415161718, 3};
const TraceContext kOther{{5, 6}, 7, 1};

SpanHead Head() {
  SpanHead head;
  head.name = "name";
  head.kind = SpanKind::kServer;
  head.context = kContext;
  head.parent = 0x21;
  head.remote_parent = true;
  head.tracestate = "a=1";
  head.start = absl::FromUnixNanos(1'000'000'001);
  head.end = absl::FromUnixNanos(2'000'000'002);
  return head;
}

Span Parsed(const std::string& bytes) {
  ScopeSpans spans;
  EXPECT_TRUE(spans.ParseFromString(bytes));
  EXPECT_EQ(spans.spans_size(), 1);
  return spans.spans_size() == 1 ? spans.spans(0) : Span();
}

TEST(SpanWriterTest, WhatEverySpanHas) {
  std::string bytes;
  { const SpanWriter writer(Head(), &bytes); }
  const Span span = Parsed(bytes);
  EXPECT_EQ(span.trace_id(), "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10");
  EXPECT_EQ(span.span_id(), "\x11\x12\x13\x14\x15\x16\x17\x18");
  EXPECT_EQ(span.parent_span_id(), std::string("\0\0\0\0\0\0\0\x21", 8));
  EXPECT_EQ(span.trace_state(), "a=1");
  EXPECT_EQ(span.name(), "name");
  EXPECT_EQ(span.kind(), Span::SPAN_KIND_SERVER);
  EXPECT_EQ(span.start_time_unix_nano(), 1'000'000'001u);
  EXPECT_EQ(span.end_time_unix_nano(), 2'000'000'002u);
  EXPECT_EQ(span.flags(), 0x303u);  // W3C flags; the parent is remote.
  EXPECT_FALSE(span.has_status());
}

TEST(SpanWriterTest, ARootHasNoParent) {
  SpanHead head = Head();
  head.parent = 0;
  head.tracestate = "";
  std::string bytes;
  { const SpanWriter writer(head, &bytes); }
  EXPECT_EQ(Parsed(bytes).parent_span_id(), "");
  EXPECT_EQ(Parsed(bytes).flags(), 0x103u);
}

TEST(SpanWriterTest, ASpanNeverEndsBeforeItBegan) {
  SpanHead head = Head();
  head.end = head.start - absl::Seconds(1);
  std::string bytes;
  { const SpanWriter writer(head, &bytes); }
  EXPECT_EQ(Parsed(bytes).end_time_unix_nano(), Parsed(bytes).start_time_unix_nano());
}

TEST(SpanWriterTest, AttributesLinksEventsAndAnError) {
  std::string bytes;
  {
    SpanWriter writer(Head(), &bytes);
    writer.Text("text", "a \"b\"").Number("number", -5).Flag("yes", true).Flag("no", false);
    writer.Link(kOther).Number("rows", 3);
    writer.Link(kContext);
    writer.Event("retry", absl::FromUnixNanos(9)).Text("why", "lost");
    writer.DroppedLinks(200);
    writer.Error("it broke");
  }
  const Span span = Parsed(bytes);
  ASSERT_EQ(span.attributes_size(), 4);
  EXPECT_EQ(span.attributes(0).value().string_value(), "a \"b\"");
  EXPECT_EQ(span.attributes(1).value().int_value(), -5);
  EXPECT_TRUE(span.attributes(2).value().bool_value());
  EXPECT_TRUE(span.attributes(3).value().has_bool_value());
  ASSERT_EQ(span.links_size(), 2);
  EXPECT_EQ(span.links(0).span_id(), std::string("\0\0\0\0\0\0\0\7", 8));
  EXPECT_EQ(span.links(0).flags(), 1u);
  EXPECT_EQ(span.links(0).attributes(0).value().int_value(), 3);
  EXPECT_EQ(span.links(1).attributes_size(), 0);
  ASSERT_EQ(span.events_size(), 1);
  EXPECT_EQ(span.events(0).name(), "retry");
  EXPECT_EQ(span.events(0).time_unix_nano(), 9u);
  EXPECT_EQ(span.events(0).attributes(0).key(), "why");
  EXPECT_EQ(span.dropped_links_count(), 200u);
  EXPECT_EQ(span.status().code(), internal::otlp::Status::STATUS_CODE_ERROR);
  EXPECT_EQ(span.status().message(), "it broke");
}

TEST(SpanWriterTest, NumbersKeepTheirValue) {
  for (const int64_t value :
       {int64_t{0}, int64_t{127}, int64_t{128}, int64_t{1} << 40,
        std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    std::string bytes;
    {
      SpanWriter writer(Head(), &bytes);
      writer.Number("n", value);
    }
    EXPECT_EQ(Parsed(bytes).attributes(0).value().int_value(), value);
  }
}

// One that is no UTF-8 would lose the whole export.
TEST(SpanWriterTest, TextsOfPeersAreCleanedAndCut) {
  std::string bytes;
  {
    SpanWriter writer(Head(), &bytes);
    writer.Text("bad", "\xff\x1b").Text("long", std::string(10000, 'x'));
    writer.Error("\xfe");
  }
  const Span span = Parsed(bytes);
  EXPECT_EQ(span.attributes(0).value().string_value(), "\\xff\\x1b");
  EXPECT_LT(span.attributes(1).value().string_value().size(), 600u);
  EXPECT_EQ(span.status().message(), "\\xfe");
}

TEST(SpanWriterTest, SpansOfAProcess) {
  std::string spans;
  for (int i = 0; i < 3; ++i) {
    const SpanWriter writer(Head(), &spans);
  }
  std::string resource;
  AppendAttribute(1, "service.name", absl::string_view("router"), &resource);
  std::string bytes;
  AppendResourceSpans(resource, spans, &bytes);
  AppendResourceSpans(resource, "", &bytes);
  TracesData data;
  ASSERT_TRUE(data.ParseFromString(bytes));
  ASSERT_EQ(data.resource_spans_size(), 2);
  EXPECT_EQ(data.resource_spans(0).resource().attributes(0).value().string_value(), "router");
  EXPECT_EQ(data.resource_spans(0).scope_spans(0).scope().name(), "expertmesh");
  EXPECT_EQ(data.resource_spans(0).scope_spans(0).spans_size(), 3);
}

}  // namespace
}  // namespace expertmesh::trace
