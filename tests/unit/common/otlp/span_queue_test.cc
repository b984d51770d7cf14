#include "common/otlp/span_queue.h"

#include <memory>
#include <utility>

#include "common/trace/otlp.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::otlp {
namespace {

using ::testing::ElementsAre;

class SpanQueueTest : public testing::Test {
 protected:
  SpanQueueTest() {
    options_.max_queue_spans = 100;
    options_.max_queue_bytes = 100'000;
    options_.max_batch_spans = 10;
    options_.max_batch_bytes = 10'000;
  }

  // One span of about so many bytes, which claims to be `count`.
  static SpanPiece Piece(const trace::ResourcePtr& resource, uint32_t count, size_t bytes = 1,
                         absl::Time due = absl::UnixEpoch()) {
    internal::otlp::ScopeSpans spans;
    spans.add_spans()->set_name(std::string(bytes, 'n'));
    return {resource, spans.SerializeAsString(), count, due};
  }
  static trace::ResourcePtr ResourceOf(const std::string& name) {
    return std::make_shared<trace::Resource>(trace::TextAttributes{{"service.name", name}});
  }
  static std::vector<uint32_t> Counts(const std::vector<SpanPiece>& pieces) {
    std::vector<uint32_t> counts;
    for (const SpanPiece& piece : pieces) {
      counts.push_back(piece.count);
    }
    return counts;
  }

  OtlpOptions options_;
  OtlpCounts counts_;
  const trace::ResourcePtr a_ = ResourceOf("a");
  const trace::ResourcePtr b_ = ResourceOf("b");
};

TEST_F(SpanQueueTest, IsBoundedInSpansAndInBytes) {
  SpanQueue spans(options_, &counts_);
  EXPECT_TRUE(spans.Push(Piece(a_, 60)));
  EXPECT_FALSE(spans.Push(Piece(a_, 41)));
  EXPECT_TRUE(spans.Push(Piece(a_, 40)));
  EXPECT_FALSE(spans.Push(Piece(a_, 1)));
  EXPECT_EQ(counts_.queue_spans, 100u);

  options_.max_queue_spans = 1'000'000;
  SpanQueue bytes(options_, &counts_);
  int taken = 0;
  while (bytes.Push(Piece(a_, 1, 1))) {
    ++taken;
  }
  // Small spans cost memory beside their bytes.
  EXPECT_LT(taken, 1000);
  EXPECT_LE(counts_.queue_bytes, options_.max_queue_bytes);
}

TEST_F(SpanQueueTest, ABatchIsTheOldestThatFit) {
  SpanQueue queue(options_, &counts_);
  for (const uint32_t count : {4, 5, 2, 10, 7, 3, 1}) {
    EXPECT_TRUE(queue.Push(Piece(a_, count)));
  }
  EXPECT_TRUE(queue.HasFullBatch());
  EXPECT_THAT(Counts(queue.TakeBatch()), ElementsAre(4, 5));
  EXPECT_THAT(Counts(queue.TakeBatch()), ElementsAre(2));
  EXPECT_THAT(Counts(queue.TakeBatch()), ElementsAre(10));
  EXPECT_THAT(Counts(queue.TakeBatch()), ElementsAre(7, 3));
  EXPECT_FALSE(queue.HasFullBatch());
  EXPECT_THAT(Counts(queue.TakeBatch()), ElementsAre(1));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(counts_.queue_spans, 0u);
  EXPECT_EQ(counts_.queue_bytes, 0u);
}

TEST_F(SpanQueueTest, ARequestHasAtMostItsBytesWhateverTheResources) {
  SpanQueue queue(options_, &counts_);
  const trace::ResourcePtr large = ResourceOf(std::string(400, 'r'));
  for (int i = 0; i < 60; ++i) {
    EXPECT_TRUE(queue.Push(Piece(i % 2 == 0 ? large : a_, 1, 900)));
  }
  while (!queue.empty()) {
    EXPECT_LE(RequestOf(queue.TakeBatch()).size(), options_.max_batch_bytes);
  }
  // The largest piece that the exporter makes is a request alone.
  SpanPiece largest = Piece(large, 1);
  largest.bytes.resize(MostPieceBytes(*large, options_));
  EXPECT_TRUE(queue.Push(std::move(largest)));
  EXPECT_LE(RequestOf(queue.TakeBatch()).size(), options_.max_batch_bytes);
  options_.max_batch_bytes = 100;
  EXPECT_EQ(MostPieceBytes(*large, options_), 0u);
}

TEST_F(SpanQueueTest, TheOldestSaysWhenItIsDue) {
  SpanQueue queue(options_, &counts_);
  EXPECT_EQ(queue.due(), absl::InfiniteFuture());
  const absl::Time first = absl::UnixEpoch() + absl::Seconds(1);
  EXPECT_TRUE(queue.Push(Piece(a_, 10, 1, first)));
  EXPECT_TRUE(queue.Push(Piece(a_, 1, 1, first + absl::Seconds(1))));
  EXPECT_EQ(queue.due(), first);
  queue.TakeBatch();
  EXPECT_EQ(queue.due(), first + absl::Seconds(1));
}

TEST_F(SpanQueueTest, EachResourceStandsOnceInARequest) {
  std::vector<SpanPiece> pieces;
  for (const auto& resource : {a_, b_, a_, b_, a_}) {
    pieces.push_back(Piece(resource, 1));
  }
  internal::otlp::TracesData request;
  ASSERT_TRUE(request.ParseFromString(RequestOf(pieces).Flatten()));
  ASSERT_EQ(request.resource_spans_size(), 2);
  const auto& a = request.resource_spans(0);
  EXPECT_EQ(a.resource().attributes(0).value().string_value(), "a");
  EXPECT_EQ(a.scope_spans(0).spans_size(), 3);
  const auto& b = request.resource_spans(1);
  EXPECT_EQ(b.resource().attributes(0).value().string_value(), "b");
  EXPECT_EQ(b.scope_spans(0).spans_size(), 2);
}

}  // namespace
}  // namespace expertmesh::otlp
