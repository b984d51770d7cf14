#include "client/cpp/command/placement_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

client::PlacementState AtRest() {
  client::PlacementState state;
  state.epoch = 7;
  state.policy.interval = absl::Minutes(1);
  state.policy.hysteresis = 0.05;
  state.policy.min_tokens = 1024;
  state.moves.phase = "idle";
  return state;
}

client::PlacementProposal Proposal() {
  client::PlacementProposal proposal;
  proposal.apply = true;
  proposal.reason = "layer 3 improves";
  proposal.layers = {{0, 1.01, 1.0, 1.5, true},
                     {3, 1.1, 1.1, std::numeric_limits<double>::infinity(), false}};
  proposal.moves = {"first move", "second move", "third move"};
  proposal.move_count = 1200;
  proposal.bytes_loaded = 3 << 20;
  proposal.bytes_freed = 1 << 10;
  proposal.load_time = absl::Seconds(2);
  return proposal;
}

TEST(PlacementReportTest, AMeshAtRestSaysWhyNothingMoves) {
  client::PlacementState state = AtRest();
  EXPECT_THAT(
      DescribePlacement(state, true),
      AllOf(HasSubstr("epoch 7, manual; copies of an expert: at least as many as now, at most "
                      "one a node; hysteresis 5%; a plan loads what it needs; layers with 1,024 "
                      "tokens or more\n"),
            HasSubstr("planner: not asked yet\n"),
            HasSubstr("nothing moves by itself: `placement apply` moves"),
            HasSubstr("no plan in force: every copy that nodes offer is used\n"),
            Not(HasSubstr("last error"))));
  state.policy.automatic = true;
  state.policy.min_copies = 2;
  state.policy.byte_budget = 1 << 30;
  state.last_proposal = Proposal();
  state.last_proposal->apply = false;
  state.since_planned = absl::Milliseconds(1500);
  state.since_moved = absl::Seconds(9);
  state.moves.last_error = "a node went away";
  EXPECT_THAT(
      DescribePlacement(state, false),
      AllOf(HasSubstr("automatic, every 1m; copies of an expert: at least 2, at"),
            HasSubstr("at most 1 GiB"), HasSubstr("the last was completed 9.0 s ago\n"),
            HasSubstr("last error: a node went away\n"),
            HasSubstr("planner, 1.5 s ago: nothing to move: layer 3 improves; fullest node over "
                      "the mean in the worst layer: inf, planned 1.100, at best 1.100\n"),
            HasSubstr("nothing moves until the planner says so, every 1m\n"),
            Not(HasSubstr("in force"))));
}

TEST(PlacementReportTest, AMoveSaysHowFarItIs) {
  client::PlacementState state = AtRest();
  state.moves = {"loading", "node b", 3, 9, 1 << 20, 3 << 20, 2 << 20, "", 4, 1, 2};
  EXPECT_THAT(DescribePlacement(state, false),
              AllOf(HasSubstr("moves: loading: copies 3 of 9, 1 MiB of 3 MiB, 2 MiB/s; waits for "
                              "node b; completed 4, failed 1, repairs 2\n"),
                    Not(HasSubstr("nothing moves"))));
}

TEST(PlacementReportTest, CopiesAreCountedByNodeAndLayer) {
  client::PlacementState state = AtRest();
  state.plan = {{"a", "b", "c"},
                {{0, {1, 2}, {0, 0, 1}, {1, 0.5, 0.5}},
                 {1, {1, 2}, {0, 0, 1}, {1, 0.5, 0.5}},
                 {4, {1, 1}, {0, 1}, {1, 1}}}};
  EXPECT_THAT(DescribePlacement(state, true),
              AllOf(HasSubstr("plan in force: 8 copies of 6 experts in 3 layers on 3 nodes\n"),
                    HasSubstr("   a       5  1 (layer 4), 2 (layers 0-1)\n"),
                    HasSubstr(" b       3             1 (layers 0-1,4)\n"),
                    HasSubstr(" c       0                         none\n")));
  state.plan->layers.clear();
  for (uint32_t layer = 0; layer < 5; ++layer) {
    client::LayerPlacement& placed = state.plan->layers.emplace_back();
    placed.layer = layer;
    placed.copies_per_expert.assign(layer + 1, 1);
    placed.copy_nodes.assign(layer + 1, 0);
    placed.copy_shares.assign(layer + 1, 1);
  }
  EXPECT_THAT(DescribePlacement(state, true), HasSubstr(" a      15  1 to 5 a layer\n"));
}

TEST(PlacementReportTest, AProposalShowsItsLayersAndSomeMoves) {
  const std::string text = DescribeProposal(Proposal(), 2);
  EXPECT_THAT(text, AllOf(HasSubstr("worth moving for: layer 3 improves\n"),
                          HasSubstr(" 0           1.500    1.010    1.000  1.00%  changes\n"),
                          HasSubstr(" 3  too few copies    1.100    1.100  0.00%    stays\n"),
                          HasSubstr("1,200 moves, 3 MiB to load in 2.0 s, 1 KiB freed\n"),
                          HasSubstr("  second move\n  and 1,198 more (--moves N)\n"),
                          Not(HasSubstr("third move"))));
  client::PlacementProposal none;
  none.reason = "balanced";
  EXPECT_THAT(DescribeProposal(none, 10),
              AllOf(HasSubstr("nothing to move: balanced\n"), HasSubstr("0 moves, 0 B to load, 0"),
                    Not(HasSubstr("more"))));
}

TEST(PlacementReportTest, JsonHasNullsForWhatIsNotThere) {
  client::PlacementState state = AtRest();
  nlohmann::json json = PlacementJson(state);
  for (const char* key : {"plan", "last_proposal", "since_planned_ms", "since_moved_ms"}) {
    EXPECT_TRUE(json[key].is_null()) << key;
  }
  EXPECT_EQ(json["policy"]["interval_ms"], 60000);
  state.last_proposal = Proposal();
  state.plan.emplace();
  state.since_moved = absl::Seconds(2);
  json = nlohmann::json::parse(PlacementJson(state).dump());
  EXPECT_EQ(json["since_moved_ms"], 2000);
  EXPECT_TRUE(json["plan"]["layers"].is_array());
  EXPECT_EQ(json["last_proposal"]["layers"][0]["present_fullest_over_mean"], 1.5);
  EXPECT_TRUE(json["last_proposal"]["layers"][1]["present_fullest_over_mean"].is_null());
}

}  // namespace
}  // namespace expertmesh::command
