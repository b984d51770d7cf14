#include "router_service/moves/node_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/wire/error_reason.h"

namespace expertmesh::moves {
namespace {

constexpr ExpertKey kSmall{1, 0};
constexpr ExpertKey kLarge{2, 0};

class NodeTableTest : public testing::Test {
 protected:
  static NodeState State(const std::string& node_id, const HeldExperts& held, uint64_t weights,
                         uint64_t limit = 0, const std::string& instance = "first") {
    NodeState state;
    state.node_id = node_id;
    state.instance_id = instance;
    state.ready = true;
    state.held = std::make_shared<const HeldExperts>(held);
    state.weights_bytes = weights;
    state.limit_bytes = limit;
    return state;
  }

  const absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  NodeTable table_{{.bytes_per_second = 100, .node_bytes_per_second = 50}, {{1, 10}, {2, 30}}};
};

TEST_F(NodeTableTest, SizesInBytesAreLearnedFromWhatNodesHold) {
  // Quantised on a, expanded on b; what c will do is guessed from both.
  table_.Refresh(now_,
                 {State("a", {kSmall, kLarge}, 80), State("b", {kLarge}, 120), State("c", {}, 0)});
  EXPECT_EQ(table_.BytesOf("a", kSmall), 20u);
  EXPECT_EQ(table_.BytesOf("a", kLarge), 60u);
  EXPECT_EQ(table_.BytesOf("b", kSmall), 40u);
  EXPECT_EQ(table_.BytesOf("c", kLarge), 86u);
}

TEST_F(NodeTableTest, WhatElseANodeHoldsMakesNoExpertLarger) {
  // Two bytes a unit, and shared experts of 60 units; b holds nothing else.
  NodeState a = State("a", {kSmall, kLarge}, 200);
  a.other_units = 60;
  NodeState b = State("b", {}, 120);
  b.other_units = 60;
  table_.Refresh(now_, {a, b});
  EXPECT_EQ(table_.BytesOf("a", kSmall), 20u);
  EXPECT_EQ(table_.BytesOf("a", kLarge), 60u);
  EXPECT_EQ(table_.BytesOf("b", kLarge), 60u);
  EXPECT_EQ(table_.OtherBytes("b"), 120u);
  EXPECT_EQ(table_.OtherBytes("c"), 0u);
  // It let go of them, and of nothing that can be moved.
  a.other_units = 0;
  a.weights_bytes = 80;
  table_.Refresh(now_, {a, b});
  EXPECT_EQ(table_.BytesOf("a", kLarge), 60u);
}

TEST_F(NodeTableTest, ACopyOnANodeThatIsNotReadyIsThereAndNotCountedOn) {
  NodeState drains = State("a", {kSmall}, 20);
  drains.ready = false;
  table_.Refresh(now_, {drains});
  EXPECT_TRUE(table_.Holds("a", kSmall));
  EXPECT_FALSE(table_.HasCopy("a", kSmall));
  EXPECT_FALSE(table_.Holds("a", kLarge));
  EXPECT_FALSE(table_.Holds("b", kSmall));
}

TEST_F(NodeTableTest, FreeBytesAreThoseOfTheLimitThatNothingTakes) {
  table_.Refresh(now_, {State("a", {kSmall}, 20, 50), State("b", {kSmall}, 90, 50)});
  EXPECT_EQ(table_.FreeBytes("a"), 30u);
  EXPECT_EQ(table_.FreeBytes("b"), 0u);
  // The answer to an unload is newer than the status that comes before it.
  const uint64_t call = table_.Begin("b", CallKind::kUnload, {kSmall}, now_);
  table_.Answer(call, absl::OkStatus(), 5, now_);
  EXPECT_EQ(table_.FreeBytes("b"), 45u);
}

TEST_F(NodeTableTest, LoadsWaitForTheirTurnOnTheNodeAndInTheMesh) {
  table_.Refresh(now_, {State("a", {kSmall}, 10), State("b", {kSmall}, 10)});
  EXPECT_LE(table_.LoadableAt("a"), now_);
  table_.Begin("a", CallKind::kLoad, {kLarge}, now_);  // 30 bytes.
  EXPECT_EQ(table_.LoadableAt("a"), now_ + absl::Milliseconds(600));
  EXPECT_EQ(table_.LoadableAt("b"), now_ + absl::Milliseconds(300));
}

TEST_F(NodeTableTest, ACopyThatIsLeavingCountsNoMoreUntilTheProcessIsAnotherOrItStays) {
  table_.Refresh(now_, {State("a", {kSmall}, 10)});
  EXPECT_TRUE(table_.HasCopy("a", kSmall));
  uint64_t call = table_.Begin("a", CallKind::kUnload, {kSmall}, now_);
  EXPECT_FALSE(table_.HasCopy("a", kSmall));
  // It may still be on its way out after the answer was lost.
  EXPECT_EQ(table_.Answer(call, absl::UnavailableError("lost"), 0, now_).kind,
            Verdict::Kind::kAgain);
  table_.Refresh(now_, {State("a", {kSmall}, 10)});
  EXPECT_FALSE(table_.HasCopy("a", kSmall));
  call = table_.Begin("a", CallKind::kLoad, {kSmall}, now_);
  table_.Answer(call, absl::OkStatus(), 10, now_);
  table_.Refresh(now_, {State("a", {kSmall}, 10)});
  EXPECT_TRUE(table_.HasCopy("a", kSmall));
  table_.Begin("a", CallKind::kUnload, {kSmall}, now_);
  table_.Refresh(now_, {State("a", {kSmall}, 10, 0, "second")});
  EXPECT_TRUE(table_.HasCopy("a", kSmall));
  EXPECT_FALSE(table_.AnyCall());
}

TEST_F(NodeTableTest, AnswersAreTriedAgainRefusedOrTheEnd) {
  table_.Refresh(now_, {State("a", {}, 0)});
  const auto answer = [this](const absl::Status& status) {
    return table_.Answer(table_.Begin("a", CallKind::kLoad, {kSmall}, now_), status, 0, now_);
  };
  EXPECT_EQ(answer(absl::UnavailableError("x")).kind, Verdict::Kind::kAgain);
  EXPECT_EQ(answer(ErrorOf(v1::ERROR_REASON_QUEUE_FULL, "x")).kind, Verdict::Kind::kAgain);
  EXPECT_EQ(table_.LoadableAt("a"), now_ + absl::Seconds(2));
  EXPECT_EQ(answer(absl::ResourceExhaustedError("x")).kind, Verdict::Kind::kFailed);
  EXPECT_EQ(answer(absl::FailedPreconditionError("x")).kind, Verdict::Kind::kFailed);
  EXPECT_EQ(answer(ErrorOf(v1::ERROR_REASON_TERM_PASSED, "x")).kind, Verdict::Kind::kFenced);
  EXPECT_EQ(answer(absl::OkStatus()).kind, Verdict::Kind::kOk);
}

TEST_F(NodeTableTest, WhatANodeThatIsGoneHeldDoesNotCount) {
  table_.Refresh(now_, {State("a", {kSmall}, 10)});
  table_.Refresh(now_, {});
  EXPECT_FALSE(table_.Ready("a"));
  EXPECT_FALSE(table_.HasCopy("a", kSmall));
  EXPECT_EQ(table_.Find("a")->away_since, now_);
}

}  // namespace
}  // namespace expertmesh::moves
