#include "router_service/tracing/trace_store.h"

#include "common/trace/otlp.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::tracing {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

const trace::ResourcePtr kResource =
    std::make_shared<const trace::Resource>(trace::TextAttributes{{"service.name", "router"}});

// A request that never was in a batch, with `padding` bytes of text.
TraceRecord Trace(uint64_t id, absl::Duration duration, size_t padding = 0) {
  TraceRecord record;
  record.batch_requests = 1;
  RequestRecord& request = record.requests.emplace_back();
  request.span = {{1, id}, 5, 1};
  request.arrival = absl::UnixEpoch();
  request.answered = request.arrival + duration;
  request.peer = record.AddText(std::string(padding, 'x'));
  return record;
}

std::vector<uint64_t> Ids(const std::vector<TraceLine>& lines) {
  std::vector<uint64_t> ids;
  for (const TraceLine& line : lines) {
    ids.push_back(line.id.low);
  }
  return ids;
}

TEST(TraceStoreTest, ATraceHasTheSpansOfAllItsRequests) {
  TraceStore store(1 << 20, kResource);
  store.Add(Trace(1, absl::Seconds(1)));
  store.Add(Trace(2, absl::Seconds(1)));
  store.Add(Trace(1, absl::Seconds(2)));
  const std::optional<std::string> bytes = store.Find({1, 1});
  ASSERT_TRUE(bytes.has_value());
  internal::otlp::TracesData data;
  ASSERT_TRUE(data.ParseFromString(*bytes));
  EXPECT_EQ(data.resource_spans_size(), 2);
  EXPECT_EQ(data.resource_spans(1).resource().attributes(0).value().string_value(), "router");
  EXPECT_EQ(data.resource_spans(1).scope_spans(0).spans(0).name(), "expertmesh.v1.Router/Forward");
  EXPECT_FALSE(store.Find({1, 3}).has_value());
}

TEST(TraceStoreTest, ListsAreInTheOrderThatIsAskedFor) {
  TraceStore store(1 << 20, kResource);
  store.Add(Trace(1, absl::Seconds(2)));
  store.Add(Trace(2, absl::Seconds(3)));
  store.Add(Trace(3, absl::Seconds(1)));
  EXPECT_THAT(Ids(store.Recent(2)), ElementsAre(3, 2));
  EXPECT_THAT(Ids(store.Slowest(2)), ElementsAre(2, 1));
  EXPECT_THAT(store.Slowest(9), SizeIs(3));
}

TEST(TraceStoreTest, TheSlowestOutliveNewerOnes) {
  TraceStore store(100'000, kResource);
  store.Add(Trace(1, absl::Seconds(99)));
  for (uint64_t id = 2; id < 3000; ++id) {
    store.Add(Trace(id, absl::Milliseconds(id % 7)));
  }
  EXPECT_THAT(Ids(store.Slowest(1)), ElementsAre(1));
  EXPECT_TRUE(store.Find({1, 1}).has_value());
  EXPECT_TRUE(store.Find({1, 2999}).has_value());
  EXPECT_FALSE(store.Find({1, 7}).has_value());
  // At most the newest and as much again.
  EXPECT_LT(store.Slowest(10'000).size(), 2 * 100'000 / sizeof(TraceRecord));
}

TEST(TraceStoreTest, BytesAreBounded) {
  constexpr size_t kBytes = 200'000;
  constexpr size_t kEach = 10'000;
  TraceStore store(kBytes, kResource);
  for (uint64_t id = 1; id < 200; ++id) {
    store.Add(Trace(id, absl::Seconds(id), kEach));
  }
  size_t found = 0;
  for (uint64_t id = 1; id < 200; ++id) {
    found += store.Find({1, id}).has_value() ? 1 : 0;
  }
  EXPECT_LE(found * kEach, 2 * kBytes);
  EXPECT_GE(found * kEach, kBytes / 2);
}

TEST(TraceStoreTest, ABatchIsFoundByEachOfItsTraces) {
  TraceStore store(1 << 20, kResource);
  TraceRecord record = Trace(1, absl::Seconds(3));
  record.batch_requests = 3;
  record.dispatched = true;
  record.batch = {{7, 7}, 8, 1};
  RequestRecord second = record.requests.front();
  second.span = {{1, 2}, 6, 1};
  second.answered = second.arrival + absl::Seconds(1);
  record.requests.push_back(second);
  record.requests.push_back(second);  // Another request of the same trace.
  store.Add(record);
  EXPECT_THAT(Ids(store.Recent(9)), ElementsAre(1, 2, 2, 7));
  EXPECT_THAT(Ids(store.Slowest(1)), ElementsAre(1));
  const auto spans = [&](const trace::TraceId& id) {
    internal::otlp::TracesData data;
    EXPECT_TRUE(data.ParseFromString(*store.Find(id)));
    int count = 0;
    for (const auto& process : data.resource_spans()) {
      count += process.scope_spans(0).spans_size();
    }
    return count;
  };
  EXPECT_EQ(spans({1, 1}), 2);
  EXPECT_EQ(spans({1, 2}), 4);
  EXPECT_EQ(spans({7, 7}), 1);
  for (const TraceLine& line : store.Recent(9)) {
    EXPECT_EQ(line.spans, line.name == "expertmesh.batch" ? 1u : 2u);
  }
}

TEST(TraceStoreTest, OneThatIsLargerThanTheStoreIsKeptAlone) {
  TraceStore store(1000, kResource);
  store.Add(Trace(1, absl::Seconds(1), 10'000));
  EXPECT_TRUE(store.Find({1, 1}).has_value());
}

}  // namespace
}  // namespace expertmesh::tracing
