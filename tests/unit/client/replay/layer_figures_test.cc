#include "client/cpp/replay/layer_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace expertmesh::replay {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

// Two nodes; top-1; 100 tokens in 4 batches of 25.
MeshModel TwoNodes() {
  MeshModel mesh;
  mesh.nodes = {{.speed = 1}, {.speed = 2}};
  mesh.times = {.assignment_us = 4,
                .expert_us = 0,
                .batch_us = 20,
                .row_us = 0,
                .token_us = 0,
                .hop_us = 100};
  return mesh;
}

const balance::LayerPlacement kPlacement = {
    .layer = 0,
    .experts = {{{.node = 0, .share = 1}},
                {{.node = 0, .share = .25f}, {.node = 1, .share = .75f}}}};

LayerFigures Evaluate(const MeshModel& mesh, const std::vector<bool>& alive) {
  LayerFigures figures;
  EvaluateLayer(mesh, alive, kPlacement, {20, 80}, 100, {{.tokens = 25, .batches = 4}}, &figures);
  return figures;
}

TEST(EvaluateLayerTest, DividesLoadByShares) {
  const LayerFigures figures = Evaluate(TwoNodes(), {true, true});
  EXPECT_THAT(figures.assignments, ElementsAre(DoubleNear(40, 1e-4), DoubleNear(60, 1e-4)));
  // Times 160 and 120; divided evenly 100 / (1/4 + 1/2) = 133.3.
  EXPECT_NEAR(figures.fullest_over_mean, 1.2, 1e-5);
  EXPECT_EQ(figures.lost, 0);
}

TEST(EvaluateLayerTest, TimesOfABatchComeFromMeasuredTimes) {
  const LayerFigures figures = Evaluate(TwoNodes(), {true, true});
  ASSERT_EQ(figures.times.size(), 1u);
  EXPECT_EQ(figures.times[0].batches, 4);
  const std::vector<NodeTime>& times = figures.times[0].nodes;
  ASSERT_EQ(times.size(), 2u);
  // 10 of a batch's 25 tokens, 4 us each, 20 us for the batch, 100 us on the way.
  EXPECT_NEAR(times[0].mean_us, 160, 1e-3);
  EXPECT_NEAR(times[1].mean_us, 100 + 10 + 15 * 2, 1e-3);
  EXPECT_NEAR(times[0].deviation_us, 4 * std::sqrt(25 * (.2 * .8 + .2 * .8)), 1e-3);
  EXPECT_NEAR(figures.busy_us[0], 40 * 4 + 4 * 20, 1e-3);
  EXPECT_NEAR(figures.busy_us[1], 60 * 2 + 4 * 10, 1e-3);
}

TEST(EvaluateLayerTest, RowsCostTheLinkOncePerToken) {
  MeshModel mesh = TwoNodes();
  mesh.times.row_us = 3;
  mesh.nodes[0].link = 2;
  const LayerFigures figures = Evaluate(mesh, {true, true});
  // A token has one of two experts here with 0.2 each: taken as independent, 1 - 0.8 * 0.8.
  EXPECT_NEAR(figures.times[0].nodes[0].mean_us, 160 + 25 * .36 * 6, 1e-3);
  // Times of assignments with their rows: 40 * 10 and 60 * 5, evenly 100 / (1/10 + 1/5).
  EXPECT_NEAR(figures.fullest_over_mean, 400 / (100 / .3), 1e-5);
}

TEST(EvaluateLayerTest, ExpertsAreReadOnceForEachBatchThatUsesThem) {
  MeshModel mesh = TwoNodes();
  mesh.times.expert_us = 50;
  mesh.times.token_us = 2;
  LayerFigures figures;
  EvaluateLayer(mesh, {true, true}, kPlacement, {20, 80}, 100,
                {{.tokens = 1, .batches = 50}, {.tokens = 25, .batches = 2}}, &figures);
  ASSERT_EQ(figures.times.size(), 2u);
  // One token: on node 0, 0.2 + 0.2 assignments and as many experts; 0.36 rows, and so much of the
  // time of a batch.
  const double one = .4 * 4 + .4 * 50 + .36 * 20;
  EXPECT_NEAR(figures.times[0].nodes[0].mean_us, 100 + 2 + one, 1e-3);
  // 25 tokens use either expert with 1 - 0.8^25.
  const double many = 10 * 4 + 2 * (1 - std::pow(.8, 25)) * 50 + 20;
  EXPECT_NEAR(figures.times[1].nodes[0].mean_us, 100 + 50 + many, 1e-3);
  EXPECT_NEAR(figures.busy_us[0], 50 * one + 2 * many, 1e-3);
  const double unused = std::pow(.8, 25);
  EXPECT_NEAR(figures.times[1].nodes[0].deviation_us,
              std::sqrt(16 * 25 * .32 + 2500 * 2 * unused * (1 - unused)), 1e-3);
}

TEST(EvaluateLayerTest, NodesThatShareCoresWaitForEachOther) {
  MeshModel mesh = TwoNodes();
  mesh.parallel_nodes = 1;
  mesh.times.row_us = 1;
  const LayerFigures figures = Evaluate(mesh, {true, true});
  const std::vector<NodeTime>& times = figures.times[0].nodes;
  ASSERT_EQ(times.size(), 3u);
  EXPECT_NEAR(times[2].mean_us, 100 + 60 + 40, 1e-3) << "links are not shared";
  mesh.parallel_nodes = 2;
  EXPECT_EQ(Evaluate(mesh, {true, true}).times[0].nodes.size(), 2u);
}

TEST(EvaluateLayerTest, WhatIsLeftOfTheCopiesTakesAll) {
  const LayerFigures one = Evaluate(TwoNodes(), {true, false});
  EXPECT_THAT(one.assignments, ElementsAre(DoubleNear(100, 1e-4), 0));
  EXPECT_EQ(one.lost, 0);
  EXPECT_NEAR(one.fullest_over_mean, 1, 1e-9);
  const LayerFigures other = Evaluate(TwoNodes(), {false, true});
  EXPECT_THAT(other.assignments, ElementsAre(0, DoubleNear(80, 1e-4)));
  EXPECT_NEAR(other.lost, 20, 1e-9);
}

TEST(EvaluateLayerTest, NoTokensAreNoWork) {
  LayerFigures figures;
  EvaluateLayer(TwoNodes(), {true, true}, kPlacement, {0, 0}, 0, {}, &figures);
  EXPECT_EQ(figures.fullest_over_mean, 1);
  EXPECT_TRUE(figures.times.empty());
}

}  // namespace
}  // namespace expertmesh::replay
