#include "client/cpp/replay/simulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "client/cpp/replay/placement_run.h"
#include "client/cpp/replay/synthetic_load.h"

namespace expertmesh::replay {
namespace {

using ::testing::HasSubstr;

// The same counts in every interval, without scores.
class ConstantLoad : public LoadSource {
 public:
  // `later`, where it is given, from interval 2 on.
  ConstantLoad(std::vector<double> assignments, size_t intervals, std::vector<double> later = {})
      : layers_(
            {{.layer = 0, .num_experts = static_cast<uint32_t>(assignments.size()), .top_k = 1}}),
        assignments_(std::move(assignments)),
        later_(std::move(later)),
        intervals_(intervals) {}

  absl::Span<const balance::RecordedLayer> layers() const override { return layers_; }
  double interval_s() const override { return 10; }
  size_t intervals() const override { return intervals_; }
  bool has_scores() const override { return false; }
  std::string Describe() const override { return "constant"; }
  void Next(IntervalLoad* load) override {
    const bool is_later = next_ >= 2 && !later_.empty();
    load->start_s = 10.0 * static_cast<double>(next_++);
    load->layers.resize(1);
    load->layers[0].assignments = is_later ? later_ : assignments_;
    load->layers[0].tokens = 0;
    for (const double assignments : load->layers[0].assignments) {
      load->layers[0].tokens += assignments;
    }
    load->layers[0].batch_sizes = {{.tokens = load->layers[0].tokens / 10, .batches = 10}};
  }

 private:
  const std::vector<balance::RecordedLayer> layers_;
  const std::vector<double> assignments_;
  const std::vector<double> later_;
  const size_t intervals_;
  size_t next_ = 0;
};

// `nodes` nodes that have room for `slots` experts of 100 bytes each, and load one in 5 s.
MeshModel Nodes(size_t nodes, uint64_t slots) {
  MeshModel mesh;
  mesh.nodes.resize(nodes);
  mesh.expert_bytes = {100};
  mesh.node_memory_bytes = slots * 100;
  mesh.load_bytes_per_second = 20;
  mesh.times = {
      .assignment_us = 4, .expert_us = 0, .batch_us = 0, .row_us = 0, .token_us = 0, .hop_us = 100};
  return mesh;
}

Policy Static() {
  Policy policy;
  policy.name = "static";
  return policy;
}

Policy Planner() {
  Policy policy;
  policy.name = "planner";
  policy.plans = true;
  policy.plan_interval_s = 20;
  return policy;
}

SimulationResult RunAll(LoadSource&& load, const MeshModel& mesh,
                        const std::vector<Policy>& policies, int threads = 1) {
  auto result = Simulate(load, mesh, policies, {.threads = threads});
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

TEST(SimulationTest, AFixedPlacementKeepsItsFullestNode) {
  // Experts 0 and 2 on node 0, 1 and 3 on node 1: 900 against 100.
  const SimulationResult result =
      RunAll(ConstantLoad({600, 50, 300, 50}, 3), Nodes(2, 2), {Static()});
  ASSERT_EQ(result.policies[0].intervals.size(), 3u);
  const IntervalFigures& last = result.policies[0].intervals[2];
  EXPECT_EQ(last.start_s, 20);
  EXPECT_NEAR(last.fullest, 1.8, 1e-9);
  EXPECT_NEAR(last.max_violation, 600 / 250.0 - 1, 1e-9);
  // 90 of a batch's 100 tokens, 4 us each, and 100 us on the way; the deviation is 12 us.
  EXPECT_NEAR(last.p50_us, 460, 1);
  EXPECT_NEAR(last.p99_us, 460 + 2.326 * 4 * std::sqrt(100 * (.6 * .4 + .3 * .7)), 1);
  EXPECT_NEAR(last.busy, 900 * 4 / 10e6, 1e-9);
  EXPECT_EQ(last.moves, 0u);
  EXPECT_EQ(last.copies, 4u);
  EXPECT_EQ(last.nodes, 2u);
}

TEST(SimulationTest, ThePlannersCopiesCountOnceTheyAreLoaded) {
  const SimulationResult result =
      RunAll(ConstantLoad({600, 50, 300, 50}, 6), Nodes(2, 3), {Static(), Planner()});
  const std::vector<IntervalFigures>& planned = result.policies[1].intervals;
  // The plan of second 20 loads a copy until second 25; the interval that begins at 30 has it.
  EXPECT_EQ(planned[1].moves, 1u);
  EXPECT_EQ(planned[1].bytes, 100u);
  EXPECT_NEAR(planned[2].fullest, 1.8, 1e-9);
  EXPECT_NEAR(planned[3].fullest, 1, 2e-3);
  EXPECT_NEAR(planned[3].lower_bound, 1, 1e-9);
  EXPECT_EQ(Summarise(result.policies[1]).moves, 1u) << "and then there is nothing to do";
  EXPECT_GE(result.policies[1].plans, 2u);
  EXPECT_NEAR(Summarise(result.policies[1]).fullest, (3 * 1.8 + 3 * planned[3].fullest) / 6, 1e-9);
  EXPECT_LT(planned[5].p50_us, planned[0].p50_us);
  EXPECT_EQ(result.policies[0].intervals[5].fullest, planned[0].fullest);
}

TEST(SimulationTest, SpeedsAndLinksAreLevelledTogether) {
  MeshModel mesh = Nodes(3, 4);
  mesh.times.row_us = 2;
  mesh.nodes = {{.speed = 1, .link = 1}, {.speed = 1, .link = 4}, {.speed = 2, .link = 1}};
  const SimulationResult result = RunAll(ConstantLoad({300, 300, 300, 300}, 8), mesh, {Planner()});
  // By the simulator's own measure: times of 6, 12 and 4 us for an assignment.
  EXPECT_GT(result.policies[0].intervals[0].fullest, 1.2);
  EXPECT_NEAR(result.policies[0].intervals[7].fullest, 1, 2e-3);
}

TEST(SimulationTest, APlanIsMadeOfWhatCameSinceTheLastOne) {
  MeshModel mesh = Nodes(2, 4);
  mesh.load_bytes_per_second = 1e6;
  const SimulationResult result =
      RunAll(ConstantLoad({900, 50, 25, 25}, 6, {25, 25, 50, 900}), mesh, {Planner()});
  const std::vector<IntervalFigures>& planned = result.policies[0].intervals;
  EXPECT_GT(planned[3].fullest, 1.2) << "planned for what came before";
  EXPECT_NEAR(planned[5].fullest, 1, 2e-3);
}

TEST(PlacementRunTest, WhatIsBeingLoadedWhenANodeFailsIsNotUsed) {
  const MeshModel mesh = Nodes(3, 4);
  const std::vector<balance::RecordedLayer> layers = {{.layer = 0, .num_experts = 6, .top_k = 1}};
  PlacementRun run(mesh, layers);
  ASSERT_TRUE(run.Plan({{500, 200, 100, 100, 60, 40}}, {}, 0).ok());
  ASSERT_TRUE(run.settling());
  run.Fail(2);
  EXPECT_FALSE(run.settling());
  run.Settle(1e9);
  EXPECT_EQ(run.copies(), 4u) << "what the other two held at the beginning";
  for (const std::vector<balance::ExpertCopy>& copies : run.layers()[0].experts) {
    for (const balance::ExpertCopy& copy : copies) {
      EXPECT_NE(copy.node, 2u);
    }
  }
  EXPECT_EQ(run.nodes(), 2u);
}

// The simulator adds nothing of its own: its plan is what PlanPlacement says of the same input.
TEST(SimulationTest, PlansAreThoseOfThePlanner) {
  const MeshModel mesh = Nodes(3, 4);
  const std::vector<balance::RecordedLayer> layers = {{.layer = 0, .num_experts = 6, .top_k = 1}};
  const std::vector<double> loads = {500, 200, 100, 100, 60, 40};
  PlacementRun run(mesh, layers);
  const auto moves = run.Plan({loads}, {}, 0);
  ASSERT_TRUE(moves.ok()) << moves.status();
  run.Settle(1e9);

  balance::PlanningInput input;
  input.layers = {{.layer = 0, .expert_bytes = 100, .loads = loads}};
  input.present.layers = FirstPlacement(mesh, layers);
  for (uint32_t node = 0; node < 3; ++node) {
    balance::NodeToPlan planned;
    planned.node_id = SimulatedNodeId(node);
    planned.capacity_bytes = 400;
    planned.speed = 1 / 4.0;
    input.nodes.push_back(planned);
    input.present.nodes.push_back(planned.node_id);
  }
  balance::HoldCopiesOf(input.present, &input.nodes);
  const auto expected = balance::PlanPlacement(input);
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_EQ(run.layers(), expected->plan.layers);
  EXPECT_NE(run.layers(), input.present.layers);
  EXPECT_EQ(moves->bytes, expected->bytes_loaded);
}

TEST(SimulationTest, AFailedNodesExpertsAreLostUntilTheyAreLoadedElsewhere) {
  MeshModel mesh = Nodes(3, 4);
  mesh.events = {{.at_s = 40, .kind = MeshEvent::Kind::kFail, .node = 0},
                 {.at_s = 80, .kind = MeshEvent::Kind::kJoin, .node = 0}};
  Policy planner = Planner();
  planner.plan_interval_s = 1000;  // It plans because of the failure alone.
  const SimulationResult result =
      RunAll(ConstantLoad({100, 100, 100, 100, 100, 100}, 10), mesh, {Static(), planner});
  const std::vector<IntervalFigures>& fixed = result.policies[0].intervals;
  EXPECT_EQ(fixed[3].lost, 0);
  EXPECT_NEAR(fixed[4].lost, 2 / 6.0, 1e-9) << "two experts of six";
  EXPECT_NEAR(fixed[9].lost, 2 / 6.0, 1e-9) << "it comes back empty";
  EXPECT_EQ(fixed[4].nodes, 2u);
  EXPECT_EQ(fixed[9].nodes, 3u);
  const std::vector<IntervalFigures>& planned = result.policies[1].intervals;
  EXPECT_NEAR(planned[4].lost, 2 / 6.0, 1e-9);
  EXPECT_EQ(planned[4].moves, 2u);
  EXPECT_EQ(planned[5].lost, 0);
  EXPECT_NEAR(planned[5].fullest, 1, 1e-3);
}

TEST(SimulationTest, AFailureEndsWhatIsBeingLoaded) {
  MeshModel mesh = Nodes(3, 4);
  mesh.load_bytes_per_second = 1;  // A copy takes 100 s.
  mesh.events = {{.at_s = 50, .kind = MeshEvent::Kind::kFail, .node = 2}};
  const SimulationResult result =
      RunAll(ConstantLoad({400, 100, 100, 100, 100, 100}, 40), mesh, {Planner()});
  const std::vector<IntervalFigures>& planned = result.policies[0].intervals;
  EXPECT_GT(planned[1].moves, 0u);
  EXPECT_GT(planned[5].moves, 0u) << "a plan at once";
  EXPECT_GT(planned[12].lost, 0) << "the first plan was never finished";
  EXPECT_EQ(planned[39].lost, 0);
}

TEST(SimulationTest, ANodeThatJoinsTakesLoad) {
  MeshModel mesh = Nodes(3, 6);
  mesh.nodes[2].present = false;
  mesh.events = {{.at_s = 30, .kind = MeshEvent::Kind::kJoin, .node = 2}};
  const SimulationResult result = RunAll(ConstantLoad({300, 300, 300, 300}, 20), mesh, {Planner()});
  const std::vector<IntervalFigures>& planned = result.policies[0].intervals;
  EXPECT_EQ(planned[2].nodes, 2u);
  EXPECT_NEAR(planned[2].fullest, 1, 1e-6);
  EXPECT_NEAR(planned[3].fullest, 1.5, 1e-6) << "three nodes, the new one idle";
  EXPECT_NEAR(planned[19].fullest, 1, 2e-3);
  EXPECT_LT(planned[19].busy, planned[2].busy);
}

TEST(SimulationTest, WhatDoesNotFitIsCounted) {
  MeshModel mesh = Nodes(2, 2);
  mesh.events = {{.at_s = 10, .kind = MeshEvent::Kind::kFail, .node = 1}};
  const SimulationResult result = RunAll(ConstantLoad({1, 1, 1, 1}, 5), mesh, {Planner()});
  EXPECT_GT(result.policies[0].failed_plans, 0u);
  EXPECT_NE(result.policies[0].failure, "");
  EXPECT_NEAR(result.policies[0].intervals[4].lost, .5, 1e-9);
}

TEST(SimulationTest, DoesNotDependOnThreads) {
  const std::vector<balance::RecordedLayer> layers = {{.layer = 0, .num_experts = 32, .top_k = 4},
                                                      {.layer = 1, .num_experts = 32, .top_k = 4},
                                                      {.layer = 2, .num_experts = 32, .top_k = 4}};
  MeshModel mesh = Nodes(8, 20);
  mesh.expert_bytes = {100, 100, 100};
  Policy both = Planner();
  both.name = "both";
  both.bias.rule = balance::BiasRule::kSign;
  const auto run = [&](int threads) {
    return RunAll(
        SyntheticLoad(ParseSyntheticLoad("zipf:1+drift:1").value(), {.intervals = 12}, layers),
        mesh, {Static(), both}, threads);
  };
  const SimulationResult one = run(1);
  const SimulationResult three = run(3);
  for (size_t policy = 0; policy < 2; ++policy) {
    for (size_t i = 0; i < 12; ++i) {
      const IntervalFigures& a = one.policies[policy].intervals[i];
      const IntervalFigures& b = three.policies[policy].intervals[i];
      EXPECT_EQ(a.fullest, b.fullest);
      EXPECT_EQ(a.p99_us, b.p99_us);
      EXPECT_EQ(a.bytes, b.bytes);
      EXPECT_EQ(a.changed, b.changed);
    }
  }
  EXPECT_LT(Summarise(one.policies[1]).fullest, Summarise(one.policies[0]).fullest);
  EXPECT_GT(Summarise(one.policies[1]).changed_worst, 0);
  EXPECT_LE(Summarise(one.policies[1]).changed_worst, .02);
}

TEST(SimulationTest, RefusesPoliciesThatCannotBe) {
  const auto error = [](const std::vector<Policy>& policies) {
    ConstantLoad load({1, 1}, 1);
    const auto result = Simulate(load, Nodes(2, 2), policies, {});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(result.status().message());
  };
  EXPECT_THAT(error({}), HasSubstr("no policies"));
  EXPECT_THAT(error({Static(), Static()}), HasSubstr("'static' comes twice"));
  Policy sign = Static();
  sign.bias.rule = balance::BiasRule::kSign;
  EXPECT_THAT(error({sign}), HasSubstr("cannot be told without their scores"));
  Policy planner = Planner();
  planner.plan_interval_s = 0;
  EXPECT_THAT(error({planner}), HasSubstr("plans every 0 s"));
}

}  // namespace
}  // namespace expertmesh::replay
