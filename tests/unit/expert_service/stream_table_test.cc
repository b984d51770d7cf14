#include "expert_service/stream_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::HasSubstr;

TEST(StreamTableTest, KnowsAStreamUntilItIsClosed) {
  StreamTable streams;
  const auto sink = std::make_shared<FakeSink>();
  const StreamId stream = streams.Open(sink);
  const StreamId other = streams.Open(std::make_shared<FakeSink>());
  EXPECT_NE(stream, other);
  EXPECT_EQ(streams.RepliesOf(stream), sink);
  EXPECT_NE(streams.RepliesOf(other), sink);
  EXPECT_EQ(streams.Close(stream), sink);
  EXPECT_EQ(streams.RepliesOf(stream), nullptr);
  EXPECT_EQ(streams.Close(stream), nullptr);
  EXPECT_EQ(sink.use_count(), 1);
  EXPECT_NE(streams.Open(sink), stream) << "ids are not used again";
}

TEST(StreamTableTest, AnIdIsInFlightOnceAtATimeOnEachStream) {
  StreamTable streams;
  const StreamId a = streams.Open(std::make_shared<FakeSink>());
  const StreamId b = streams.Open(std::make_shared<FakeSink>());
  EXPECT_TRUE(streams.AddBatch(a, 5).ok());
  EXPECT_TRUE(streams.AddBatch(b, 5).ok());
  EXPECT_TRUE(streams.AddBatch(a, 6).ok());
  const absl::Status again = streams.AddBatch(a, 5);
  EXPECT_EQ(again.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(again.message()), HasSubstr("batch_id 5"));
  streams.RemoveBatch(a, 5);
  EXPECT_TRUE(streams.AddBatch(a, 5).ok());
  EXPECT_FALSE(streams.AddBatch(b, 5).ok());
  streams.Close(a);
  streams.RemoveBatch(a, 5);  // Its answer came after all.
}

}  // namespace
}  // namespace expertmesh::node
