#include "expert_service/batch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace expertmesh::node {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

absl::Time At(int milliseconds) { return kStart + absl::Milliseconds(milliseconds); }

// What tests say of a batch.
struct Waiting {
  uint64_t id = 0;
  uint32_t rows = 1;
  uint32_t layer = 1;
  int complete_ms = 0;
  int deadline_ms = -1;  // None.
  StreamId stream = 1;
  size_t bytes = 1;
  uint32_t assignments = 0;  // Not 0: answered by so many rows.
};

QueuedBatch Make(const Waiting& waiting) {
  auto batch = std::make_unique<ReceivedBatch>();
  batch->batch_id = waiting.id;
  batch->layer = waiting.layer;
  batch->total_rows = waiting.rows;
  batch->times.complete = At(waiting.complete_ms);
  if (waiting.deadline_ms >= 0) {
    batch->deadline = At(waiting.deadline_ms);
  }
  batch->bytes = waiting.bytes;
  batch->per_assignment = waiting.assignments > 0;
  batch->expert_ids.resize(waiting.assignments);
  return {waiting.stream, nullptr, std::move(batch)};
}

std::vector<uint64_t> IdsOf(const std::vector<QueuedBatch>& batches) {
  std::vector<uint64_t> ids;
  for (const QueuedBatch& queued : batches) {
    ids.push_back(queued.batch->batch_id);
  }
  return ids;
}

class BatchQueueTest : public testing::Test {
 protected:
  void Add(const Waiting& waiting) {
    QueuedBatch queued = Make(waiting);
    EXPECT_TRUE(queue_.CheckRoom(*queued.batch).ok());
    queue_.Add(std::move(queued));
  }

  // Ids of the next group; those that have expired go to expired_.
  std::vector<uint64_t> Take(int now_ms) {
    BatchGroup group;
    if (queue_.empty()) {
      ADD_FAILURE() << "no batch waits";
      return {};
    }
    queue_.TakeGroup(At(now_ms), &group);
    expired_ = IdsOf(group.expired);
    return IdsOf(group.batches);
  }

  BatchQueue queue_{{/*max_group_rows=*/16, /*max_queue_rows=*/40, /*max_queue_bytes=*/1000,
                     /*deadline_window=*/absl::Milliseconds(100)}};
  std::vector<uint64_t> expired_;
};

TEST_F(BatchQueueTest, WhatWaitsForALayerLeavesTogetherAcrossStreams) {
  Add({.id = 1, .rows = 4, .stream = 1});
  Add({.id = 2, .rows = 5, .stream = 2});
  Add({.id = 3, .rows = 3, .layer = 2, .stream = 1});
  Add({.id = 4, .rows = 2, .stream = 2});
  EXPECT_EQ(queue_.rows(), 14u);
  EXPECT_THAT(Take(0), ElementsAre(1, 2, 4));
  EXPECT_EQ(queue_.rows(), 3u);
  EXPECT_THAT(Take(0), ElementsAre(3));
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.rows(), 0u);
}

TEST_F(BatchQueueTest, AGroupHasAtMostItsRowsAndALargerBatchGoesAlone) {
  for (uint64_t id = 1; id <= 3; ++id) {
    Add({.id = id, .rows = 7});
  }
  Add({.id = 4, .rows = 17});
  EXPECT_THAT(Take(0), ElementsAre(1, 2));
  EXPECT_THAT(Take(0), ElementsAre(3));
  EXPECT_THAT(Take(0), ElementsAre(4));
}

TEST_F(BatchQueueTest, RowsOfTheAnswerCount) {
  Add({.id = 1, .rows = 3, .assignments = 9});
  Add({.id = 2, .rows = 7});
  Add({.id = 3, .rows = 1});
  EXPECT_EQ(queue_.rows(), 11u) << "token rows wait, however they are answered";
  EXPECT_THAT(Take(0), ElementsAre(1, 2));
}

TEST_F(BatchQueueTest, OldestFirstButNearDeadlinesBeforeThat) {
  Add({.id = 1, .rows = 15, .complete_ms = 0});
  Add({.id = 2, .rows = 14, .layer = 2, .complete_ms = 1});
  Add({.id = 3, .rows = 2, .complete_ms = 2, .deadline_ms = 7});
  Add({.id = 4, .rows = 9, .complete_ms = 3, .deadline_ms = 60'000});  // Far: changes nothing.
  EXPECT_THAT(Take(4), ElementsAre(3));
  EXPECT_THAT(Take(4), ElementsAre(1));
  EXPECT_THAT(Take(4), ElementsAre(2));
  EXPECT_THAT(Take(4), ElementsAre(4));
}

TEST_F(BatchQueueTest, ABatchThatWaitedLongerThanTheWindowYieldsToNoDeadline) {
  Add({.id = 1, .rows = 16, .complete_ms = 0});
  Add({.id = 2, .rows = 16, .layer = 2, .complete_ms = 50, .deadline_ms = 99});
  EXPECT_THAT(Take(50), ElementsAre(2));
  Add({.id = 3, .rows = 16, .layer = 2, .complete_ms = 90, .deadline_ms = 101});
  EXPECT_THAT(Take(90), ElementsAre(1));
}

TEST_F(BatchQueueTest, EqualBatchesKeepTheirOrder) {
  for (uint64_t id = 1; id <= 4; ++id) {
    Add({.id = id, .rows = 8, .layer = id % 2 == 1 ? 2u : 1u});
  }
  EXPECT_THAT(Take(0), ElementsAre(1, 3));
  EXPECT_THAT(Take(0), ElementsAre(2, 4));
}

TEST_F(BatchQueueTest, ExpiredBatchesLeaveApart) {
  Add({.id = 1, .rows = 4, .deadline_ms = 5});
  Add({.id = 2, .rows = 4, .deadline_ms = 6});
  Add({.id = 3, .rows = 4});
  EXPECT_THAT(Take(5), ElementsAre(2, 3)) << "a deadline has passed when it is reached";
  EXPECT_THAT(expired_, ElementsAre(1));
  Add({.id = 4, .rows = 4, .deadline_ms = 5});
  EXPECT_THAT(Take(5), IsEmpty());
  EXPECT_THAT(expired_, ElementsAre(4));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(BatchQueueTest, RowsThatWaitAreBounded) {
  Add({.id = 1, .rows = 39});
  Add({.id = 2, .rows = 1});
  const absl::Status full = queue_.CheckRoom(*Make({.id = 3, .rows = 1}).batch);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()),
              HasSubstr("40 rows wait, 1 more pass max_queue_rows 40"));
  Take(0);
  Take(0);
  EXPECT_TRUE(queue_.CheckRoom(*Make({.id = 3, .rows = 40}).batch).ok());
}

TEST_F(BatchQueueTest, BytesThatWaitAreBounded) {
  Add({.id = 1, .bytes = 600});
  const absl::Status full = queue_.CheckRoom(*Make({.id = 2, .bytes = 401}).batch);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()),
              HasSubstr("600 bytes wait, 401 more pass max_queue_bytes 1000"));
  EXPECT_TRUE(queue_.CheckRoom(*Make({.id = 2, .bytes = 400}).batch).ok());
  Take(0);
  EXPECT_TRUE(queue_.CheckRoom(*Make({.id = 2, .bytes = 1000}).batch).ok());
}

TEST_F(BatchQueueTest, AStreamIsTakenOutOfAllLayers) {
  Add({.id = 1, .rows = 2, .stream = 7});
  Add({.id = 2, .rows = 3, .stream = 8});
  Add({.id = 3, .rows = 4, .layer = 2, .stream = 7});
  EXPECT_THAT(IdsOf(queue_.TakeStream(7)), ElementsAre(1, 3));
  EXPECT_EQ(queue_.rows(), 3u);
  EXPECT_THAT(IdsOf(queue_.TakeStream(7)), IsEmpty());
  EXPECT_THAT(Take(0), ElementsAre(2));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(BatchQueueTest, AllCanBeTakenOut) {
  Add({.id = 1, .rows = 2});
  Add({.id = 2, .rows = 3, .layer = 2, .bytes = 900});
  EXPECT_THAT(IdsOf(queue_.TakeAll()), ElementsAre(1, 2));
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.rows(), 0u);
  EXPECT_TRUE(queue_.CheckRoom(*Make({.id = 2, .bytes = 1000}).batch).ok());
}

TEST_F(BatchQueueTest, WhatIsParkedCountsAndIsInNoLine) {
  const uint64_t first = queue_.Park(Make({.id = 1, .rows = 20, .stream = 1}));
  const uint64_t second = queue_.Park(Make({.id = 2, .rows = 10, .stream = 2}));
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.batches(), 2);
  EXPECT_EQ(queue_.rows(), 30);
  EXPECT_EQ(queue_.rows_in_line(), 0);
  EXPECT_FALSE(queue_.CheckRoom(*Make({.id = 3, .rows = 11}).batch).ok());
  Add({.id = 3, .rows = 4});
  EXPECT_EQ(queue_.rows_in_line(), 4);
  queue_.Add(*queue_.Unpark(second));
  EXPECT_FALSE(queue_.Unpark(second).has_value());
  EXPECT_EQ(queue_.rows(), 34);
  EXPECT_THAT(Take(0), ElementsAre(3, 2));
  EXPECT_EQ(queue_.rows(), 20);
  EXPECT_THAT(IdsOf(queue_.TakeStream(1)), ElementsAre(1));
  EXPECT_FALSE(queue_.Unpark(first).has_value());
  queue_.Park(Make({.id = 4}));
  EXPECT_THAT(IdsOf(queue_.TakeAll()), ElementsAre(4));
  EXPECT_EQ(queue_.rows(), 0);
  EXPECT_EQ(queue_.batches(), 0);
}

}  // namespace
}  // namespace expertmesh::node
