#include "router_service/tracing/trace_store.h"

#include "common/trace/otlp.pb.h"
#include "common/trace/span_writer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::tracing {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

const trace::ResourcePtr kResource =
    std::make_shared<const trace::Resource>(trace::TextAttributes{{"service.name", "router"}});

// A trace of one span with `padding` bytes of text.
TraceSpans Trace(uint64_t id, absl::Duration duration, size_t padding = 0) {
  TraceSpans spans;
  spans.line.id = {1, id};
  spans.line.duration = duration;
  spans.line.spans = 1;
  trace::SpanGroup& group = spans.groups.emplace_back();
  group.resource = kResource;
  group.count = 1;
  trace::SpanHead head;
  head.name = "span";
  head.context = {spans.line.id, 5, 1};
  trace::SpanWriter writer(head, &group.bytes);
  for (size_t written = 0; written < padding; written += 500) {
    writer.Text("padding", std::string(500, 'x'));
  }
  return spans;
}

std::vector<uint64_t> Ids(const std::vector<TraceLine>& lines) {
  std::vector<uint64_t> ids;
  for (const TraceLine& line : lines) {
    ids.push_back(line.id.low);
  }
  return ids;
}

TEST(TraceStoreTest, ATraceHasTheSpansOfAllItsRequests) {
  TraceStore store(1 << 20);
  store.Add(Trace(1, absl::Seconds(1)));
  store.Add(Trace(2, absl::Seconds(1)));
  store.Add(Trace(1, absl::Seconds(2)));
  const std::optional<std::string> bytes = store.Find({1, 1});
  ASSERT_TRUE(bytes.has_value());
  internal::otlp::TracesData data;
  ASSERT_TRUE(data.ParseFromString(*bytes));
  EXPECT_EQ(data.resource_spans_size(), 2);
  EXPECT_EQ(data.resource_spans(1).resource().attributes(0).value().string_value(), "router");
  EXPECT_EQ(data.resource_spans(1).scope_spans(0).spans(0).name(), "span");
  EXPECT_FALSE(store.Find({1, 3}).has_value());
}

TEST(TraceStoreTest, ListsAreInTheOrderThatIsAskedFor) {
  TraceStore store(1 << 20);
  store.Add(Trace(1, absl::Seconds(2)));
  store.Add(Trace(2, absl::Seconds(3)));
  store.Add(Trace(3, absl::Seconds(1)));
  EXPECT_THAT(Ids(store.Recent(2)), ElementsAre(3, 2));
  EXPECT_THAT(Ids(store.Slowest(2)), ElementsAre(2, 1));
  EXPECT_THAT(store.Slowest(9), SizeIs(3));
}

TEST(TraceStoreTest, TheSlowestOutliveNewerOnes) {
  TraceStore store(100'000);
  store.Add(Trace(1, absl::Seconds(99)));
  for (uint64_t id = 2; id < 3000; ++id) {
    store.Add(Trace(id, absl::Milliseconds(id % 7)));
  }
  EXPECT_THAT(Ids(store.Slowest(1)), ElementsAre(1));
  EXPECT_TRUE(store.Find({1, 1}).has_value());
  EXPECT_TRUE(store.Find({1, 2999}).has_value());
  EXPECT_FALSE(store.Find({1, 7}).has_value());
  // At most the newest and as much again.
  EXPECT_LT(store.Slowest(10'000).size(), 2 * 100'000 / sizeof(TraceSpans));
}

TEST(TraceStoreTest, BytesAreBounded) {
  constexpr size_t kBytes = 200'000;
  TraceStore store(kBytes);
  for (uint64_t id = 1; id < 200; ++id) {
    store.Add(Trace(id, absl::Seconds(id), 10'000));
  }
  size_t found = 0;
  for (uint64_t id = 1; id < 200; ++id) {
    const std::optional<std::string> bytes = store.Find({1, id});
    found += bytes.has_value() ? bytes->size() : 0;
  }
  EXPECT_LE(found, 2 * kBytes);
  EXPECT_GE(found, kBytes);
}

TEST(TraceStoreTest, OneThatIsLargerThanTheStoreIsKeptAlone) {
  TraceStore store(1000);
  store.Add(Trace(1, absl::Seconds(1), 10'000));
  EXPECT_TRUE(store.Find({1, 1}).has_value());
}

}  // namespace
}  // namespace expertmesh::tracing
