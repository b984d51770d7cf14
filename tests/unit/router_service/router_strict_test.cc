// Strict mode of the whole router on the in-process transport: the bits of an output are those of
// the sum in slot order, whichever nodes served it.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5};

class RouterStrictTest : public RouterTest {
 protected:
  // Four experts of six for each token: sums whose order shows.
  void Start(bool strict, bool shared_expert = false, uint64_t max_frame_bytes = 1 << 20) {
    RouterOptions options;
    options.strict = strict;
    options.max_frame_bytes = max_frame_bytes;
    FakeCheckpointOptions checkpoint;
    checkpoint.top_k = 4;
    checkpoint.shared_expert = shared_expert;
    StartRouter(options, checkpoint);
  }
  void AddNodes(const std::vector<std::vector<uint32_t>>& experts_of_node) {
    for (const std::vector<uint32_t>& experts : experts_of_node) {
      AddNode(absl::StrCat("node", nodes_.size(), ":1"), experts);
    }
  }
  // Held until every answer waits, `lost` goes away.
  Answer ForwardAndLose(const std::vector<float>& rows, const std::string& lost) {
    FakeNode& node = *nodes_.at(lost);
    node.Hold();
    v1::ForwardRequest request;
    request.set_layer(1);
    request.set_return_routing(true);
    Answer answer;
    absl::Notification done;
    Send(Encode(request, rows), &answer, &done);
    node.AwaitHeld(1);
    network_.Unregister(lost);
    done.WaitForNotification();
    return answer;
  }

  // The fixture's Expected() sums in slot order from 0, and the shared expert last.
  static testing::AssertionResult InSlotOrder(const std::vector<float>& rows, const Answer& answer,
                                              bool shared = false) {
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    return SameBits(answer.output, Expected(1, rows, answer.response.routing(), shared), kModel);
  }
};

const std::vector<std::vector<std::vector<uint32_t>>>& Placements() {
  static const auto* const placements = new std::vector<std::vector<std::vector<uint32_t>>>{
      {kAll},
      {{0, 1, 2}, {3, 4, 5}},
      {{4, 1}, {5, 2}, {0, 3}},
      {{5}, {4}, {3}, {2}, {1}, {0}},
      {{3, 4, 5, 0}, {0, 1, 2, 3}, {1, 2, 4, 5}},
  };
  return *placements;
}

class RouterPlacementTest : public RouterStrictTest, public testing::WithParamInterface<size_t> {};

TEST_P(RouterPlacementTest, StrictBitsAreThoseOfTheSumInSlotOrder) {
  Start(/*strict=*/true);
  AddNodes(Placements()[GetParam()]);
  Connect();
  for (const size_t tokens : {1, 7, 64}) {
    const std::vector<float> rows = RandomRows(static_cast<uint32_t>(tokens), tokens);
    EXPECT_TRUE(InSlotOrder(rows, Forward(1, rows))) << tokens << " tokens";
  }
}

INSTANTIATE_TEST_SUITE_P(All, RouterPlacementTest, testing::Range<size_t>(0, 5));

TEST_F(RouterStrictTest, WithoutStrictTheBitsFollowThePlacement) {
  Start(/*strict=*/false);
  AddNodes(Placements()[2]);
  Connect();
  const std::vector<float> rows = RandomRows(64, 64);
  const Answer answer = Forward(1, rows);
  EXPECT_FALSE(InSlotOrder(rows, answer));
  ExpectRight(1, rows, answer);
  EXPECT_FALSE(router_->DescribeModel().strict());
}

TEST_F(RouterStrictTest, SharedExpertsAreAddedLast) {
  Start(/*strict=*/true, /*shared_expert=*/true);
  AddNodes(Placements()[2]);
  Connect();
  const std::vector<float> rows = RandomRows(3, 20);
  EXPECT_TRUE(InSlotOrder(rows, Forward(1, rows), /*shared=*/true));
  EXPECT_TRUE(router_->DescribeModel().strict());
}

TEST_F(RouterStrictTest, AnswersOfAtMostMaxBatchRowsInFramesOfAnySize) {
  Start(/*strict=*/true, /*shared_expert=*/false, /*max_frame_bytes=*/1);
  // The node ends the test when a batch asks for more rows than that.
  FakeNode& a = AddNodeWith("a:1", FakeNodeOptions{.experts = kAll, .max_batch_rows = 3});
  Connect();
  const std::vector<float> rows = RandomRows(5, 10);
  EXPECT_TRUE(InSlotOrder(rows, Forward(1, rows)));
  EXPECT_EQ(a.assignments(), 40u);
}

TEST_F(RouterStrictTest, ALostNodeChangesNoBit) {
  Start(/*strict=*/true);
  AddNodes({{0, 1, 2, 3}, kAll, {2, 3, 4, 5}});
  Connect();
  const std::vector<float> rows = RandomRows(7, 12);
  // All experts are on node 1, which is therefore the one that is asked.
  EXPECT_TRUE(InSlotOrder(rows, ForwardAndLose(rows, "node1:1")));
  EXPECT_GT(nodes_.at("node0:1")->assignments(), 0u);
  EXPECT_GT(nodes_.at("node2:1")->assignments(), 0u);
}

TEST_F(RouterStrictTest, SlicesOfASlotAreSummedBeforeTheNextSlot) {
  Start(/*strict=*/true);
  const auto add = [this](const std::string& address, uint32_t index) {
    AddNodeWith(address, FakeNodeOptions{.experts = kAll, .slice_index = index, .slice_count = 2});
  };
  add("b:1", 1);
  add("a:1", 0);
  add("c:1", 1);
  Connect();
  const std::vector<float> rows = RandomRows(8, 30);
  const Answer answer = ForwardAndLose(rows, "b:1");
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  const v1::Routing& routing = answer.response.routing();
  std::vector<float> expected;
  for (size_t i = 0; i < rows.size(); ++i) {
    float sum = 0;
    for (int slot = 0; slot < 4; ++slot) {
      const int at = static_cast<int>(i / kModel) * 4 + slot;
      const float half =
          routing.expert_weights(at) * FakeExpert(1, routing.expert_ids(at), rows[i], 2);
      sum += half;
      sum += half;
    }
    expected.push_back(sum);
  }
  EXPECT_TRUE(SameRows(answer.output, expected, kModel));
}

}  // namespace
}  // namespace expertmesh::router
