// What a move does when all goes well, and in what order.
#include "router_service/moves/placement_move.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/router_service/moves/sim_mesh.h"

namespace expertmesh::moves {
namespace {

using balance::ExpertCopy;
using balance::PlacementPlan;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

constexpr ExpertKey kFirst{1, 0};
constexpr ExpertKey kSecond{1, 1};

// One layer of two experts; what each is on, nodes "a", "b" and "c" by number.
PlacementPlan Plan(const std::vector<uint32_t>& first, const std::vector<uint32_t>& second) {
  PlacementPlan plan{{"a", "b", "c"}, {{1, {{}, {}}}}};
  for (const uint32_t node : first) {
    plan.layers[0].experts[0].push_back({node, 1.0f / static_cast<float>(first.size())});
  }
  for (const uint32_t node : second) {
    plan.layers[0].experts[1].push_back({node, 1.0f / static_cast<float>(second.size())});
  }
  return plan;
}

MoverOptions Options() {
  MoverOptions options;
  options.bytes_per_second = 0;
  options.node_bytes_per_second = 0;
  options.chunk_bytes = 10 * kExpertBytes;
  return options;
}

struct Mesh : SimMesh {
  explicit Mesh(MoverOptions options = Options()) : SimMesh(options, {{1, 7}, {2, 7}}) {}
};

TEST(PlacementMoveTest, NewCopiesFirstThenThePlanThenOldCopiesGo) {
  Mesh mesh;
  mesh.AddNode("a", {kFirst, kSecond});
  mesh.AddNode("b", {kFirst});
  mesh.AddNode("c", {});
  ASSERT_TRUE(mesh.Start(Plan({1}, {2})).ok());
  ASSERT_TRUE(mesh.Run());
  EXPECT_THAT(mesh.log,
              ElementsAre("load c 1/1", "switch", "confirm", "unload a 1/0,1/1", "end OK"));
  EXPECT_EQ(*mesh.move().in_force(), Plan({1}, {2}));
  const MoveProgress progress = mesh.move().progress(mesh.now());
  EXPECT_EQ(progress.copies_all, 1u);
  EXPECT_EQ(progress.copies_done, 1u);
  EXPECT_EQ(progress.bytes_done, kExpertBytes);
  EXPECT_GT(progress.bytes_per_second, 0);
  EXPECT_EQ(progress.copies_unloaded, 2u);
  EXPECT_EQ(progress.moves_completed, 1u);
  EXPECT_TRUE(progress.last_error.ok());
}

TEST(PlacementMoveTest, NothingGoesBeforeEveryRouterFollowsThePlan) {
  Mesh mesh;
  mesh.AddNode("a", {kFirst, kSecond});
  mesh.AddNode("b", {});
  mesh.HoldConfirmations(true);
  ASSERT_TRUE(mesh.Start(Plan({1}, {1})).ok());
  ASSERT_FALSE(mesh.Run(absl::Minutes(10)));
  EXPECT_THAT(mesh.log, ElementsAre("load b 1/0,1/1", "switch"));
  EXPECT_EQ(mesh.phase(), MovePhase::kSwitching);
  EXPECT_THAT(mesh.move().progress(mesh.now()).waits_for, HasSubstr("every router"));
  EXPECT_EQ(mesh.move().in_force(), nullptr);
  mesh.move().Confirm(77);  // No switch has that number.
  ASSERT_FALSE(mesh.Run(absl::Minutes(1)));
  mesh.HoldConfirmations(false);
  ASSERT_TRUE(mesh.Run());
  EXPECT_TRUE(mesh.held("a").empty());
}

TEST(PlacementMoveTest, WhatNodesHoldAlreadyIsNotLoaded) {
  Mesh mesh;
  mesh.AddNode("a", {kFirst});
  mesh.AddNode("b", {kSecond});
  ASSERT_TRUE(mesh.Start(Plan({0}, {1})).ok());
  ASSERT_TRUE(mesh.Run());
  EXPECT_THAT(mesh.log, ElementsAre("switch", "confirm", "end OK"));
}

TEST(PlacementMoveTest, LayersAndNodesThatThePlanDoesNotKnowAreLeftAlone) {
  Mesh mesh;
  mesh.AddNode("a", {kFirst, kSecond, {2, 0}});
  mesh.AddNode("stranger", {kFirst, kSecond});
  ASSERT_TRUE(mesh.Start({{"a"}, {{1, {{{0, 1.0f}}, {{0, 1.0f}}}}}}).ok());
  ASSERT_TRUE(mesh.Run());
  EXPECT_THAT(mesh.held("a"), UnorderedElementsAre(kFirst, kSecond, ExpertKey{2, 0}));
  EXPECT_THAT(mesh.held("stranger"), UnorderedElementsAre(kFirst, kSecond));
}

TEST(PlacementMoveTest, LoadingKeepsToTheBytesPerSecondOfTheMeshAndOfEachNode) {
  MoverOptions options = Options();
  options.chunk_bytes = 2 * kExpertBytes;
  options.bytes_per_second = 10 * kExpertBytes;
  options.node_bytes_per_second = 6 * kExpertBytes;
  SimMesh mesh(options, {{1, 7}});
  std::vector<ExpertKey> all;
  PlacementPlan plan{{"a", "b", "c"}, {{1, {}}}};
  for (uint32_t expert = 0; expert < 60; ++expert) {
    all.push_back({1, expert});
    plan.layers[0].experts.push_back({{0, 0.5f}, {1 + expert % 2, 0.5f}});
  }
  mesh.AddNode("a", all);
  mesh.AddNode("b", {});
  mesh.AddNode("c", {});
  ASSERT_TRUE(mesh.Start(plan).ok());
  ASSERT_TRUE(mesh.Run());
  for (size_t i = 0; i < mesh.loads.size(); ++i) {
    uint64_t bytes = 0;
    std::map<std::string, uint64_t> of_node;
    for (size_t j = i; j < mesh.loads.size(); ++j) {
      const double seconds = absl::ToDoubleSeconds(mesh.loads[j].at - mesh.loads[i].at);
      bytes += mesh.loads[j].bytes;
      EXPECT_LE(bytes, seconds * 10 * kExpertBytes + options.chunk_bytes + 1);
      const uint64_t by_it = of_node[mesh.loads[j].node_id] += mesh.loads[j].bytes;
      EXPECT_LE(by_it, seconds * 6 * kExpertBytes + options.chunk_bytes + 1);
    }
  }
  // 6000 bytes at 1000 a second; and no more careful than that.
  const absl::Duration took = mesh.loads.back().at - mesh.loads.front().at;
  EXPECT_GT(took, absl::Seconds(5.5));
  EXPECT_LT(took, absl::Seconds(7));
}

TEST(PlacementMoveTest, ANodeWithoutRoomFirstLetsGoOfWhatRoutersHaveElsewhere) {
  Mesh mesh;
  mesh.AddNode("a", {kFirst, kSecond}, 2 * kExpertBytes);
  mesh.AddNode("b", {kFirst, {2, 0}}, 2 * kExpertBytes);
  const PlacementPlan before{{"a", "b"},
                             {{1, {{{0, 0.5f}, {1, 0.5f}}, {{0, 1.0f}}}}, {2, {{{1, 1.0f}}}}}};
  mesh.Adopt(before);
  const PlacementPlan after{{"a", "b"},
                            {{1, {{{0, 1.0f}}, {{0, 0.5f}, {1, 0.5f}}}}, {2, {{{1, 1.0f}}}}}};
  ASSERT_TRUE(mesh.Start(after).ok());
  ASSERT_TRUE(mesh.Run());
  EXPECT_THAT(mesh.log, ElementsAre("unload b 1/0", "load b 1/1", "switch", "confirm", "end OK"));
}

TEST(PlacementMoveTest, WhereThatIsNotEnoughRoutersFollowWhatIsThereAlready) {
  // b takes the first expert; only then a has room for the one of layer 2.
  Mesh mesh;
  mesh.AddNode("a", {kFirst, kSecond}, 2 * kExpertBytes);
  mesh.AddNode("b", {{2, 0}}, 2 * kExpertBytes);
  mesh.Adopt({{"a", "b"}, {{1, {{{0, 1.0f}}, {{0, 1.0f}}}}, {2, {{{1, 1.0f}}}}}});
  const PlacementPlan after{{"a", "b"}, {{1, {{{1, 1.0f}}, {{0, 1.0f}}}}, {2, {{{0, 1.0f}}}}}};
  ASSERT_TRUE(mesh.Start(after).ok());
  ASSERT_TRUE(mesh.Run());
  EXPECT_THAT(mesh.log, ElementsAre("load b 1/0", "switch", "confirm", "unload a 1/0", "load a 2/0",
                                    "switch", "confirm", "unload b 2/0", "end OK"));
  EXPECT_EQ(*mesh.move().in_force(), after);
}

TEST(PlacementMoveTest, TwoFullNodesCannotSwapAndStayAsTheyWere) {
  Mesh mesh;
  mesh.AddNode("a", {kFirst}, kExpertBytes);
  mesh.AddNode("b", {kSecond}, kExpertBytes);
  const PlacementPlan before{{"a", "b"}, {{1, {{{0, 1.0f}}, {{1, 1.0f}}}}}};
  mesh.Adopt(before);
  ASSERT_TRUE(mesh.Start({{"a", "b"}, {{1, {{{1, 1.0f}}, {{0, 1.0f}}}}}}).ok());
  ASSERT_TRUE(mesh.Run());
  EXPECT_THAT(mesh.log, ElementsAre("end RESOURCE_EXHAUSTED"));
  EXPECT_THAT(std::string(mesh.outcomes[0].status.message()), HasSubstr("limit of 100"));
  EXPECT_EQ(*mesh.outcomes[0].in_force, before);
}

TEST(PlacementMoveTest, PlansThatAreNoneAreRefused) {
  Mesh mesh;
  mesh.AddNode("a", {kFirst, kSecond}, kExpertBytes * 3 / 2);
  const auto why = [&mesh](const PlacementPlan& plan) {
    const absl::Status status = mesh.Start(plan);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(why(Plan({}, {1})), HasSubstr("layer 1 expert 0 has no copy"));
  EXPECT_THAT(why(Plan({1, 1}, {1})), HasSubstr("two copies on node b"));
  EXPECT_THAT(why(Plan({9}, {1})), HasSubstr("on node 9 of 3"));
  EXPECT_THAT(why({{"a", "a"}, {}}), HasSubstr("'a' twice"));
  EXPECT_THAT(why(Plan({0}, {0})), HasSubstr("its limit is 150"));
  EXPECT_EQ(mesh.phase(), MovePhase::kIdle);
}

TEST(PlacementMoveTest, OneMoveAtATime) {
  Mesh mesh;
  mesh.AddNode("a", {kFirst, kSecond});
  mesh.AddNode("b", {});
  ASSERT_TRUE(mesh.Start(Plan({1}, {0})).ok());
  EXPECT_EQ(mesh.Start(Plan({0}, {0})).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(mesh.move().Adopt(nullptr).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(mesh.Run());
  ASSERT_TRUE(mesh.Start(Plan({0}, {0})).ok());
  ASSERT_TRUE(mesh.Run());
  EXPECT_EQ(mesh.outcomes.size(), 2u);
  EXPECT_TRUE(mesh.held("b").empty());
}

}  // namespace
}  // namespace expertmesh::moves
