#include "client/cpp/replay/layer_run.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "client/cpp/replay/synthetic_load.h"

namespace expertmesh::replay {
namespace {

const balance::RecordedLayer kLayer = {.layer = 0, .num_experts = 64, .top_k = 4};

balance::BiasPolicy Sign(float budget) {
  balance::BiasPolicy policy;
  policy.rule = balance::BiasRule::kSign;
  policy.rate = 1e-2f;
  policy.quality_budget = budget;
  return policy;
}

LayerLoad Zipf(double tokens) {
  SyntheticLoad load(ParseSyntheticLoad("zipf:0.5").value(),
                     {.tokens_per_second = tokens, .interval_s = 1, .intervals = 1}, {kLayer});
  IntervalLoad interval;
  load.Next(&interval);
  return interval.layers[0];
}

TEST(LayerRunTest, WithoutARuleTokensGoWhereTheCheckpointSendsThem) {
  LayerRun run(kLayer, {});
  const LayerLoad load = Zipf(1e5);
  run.Run(load, 8);
  EXPECT_EQ(run.assignments(), load.assignments);
  EXPECT_EQ(run.changed(), 0);
  EXPECT_GT(run.violation(), 1);
  EXPECT_EQ(run.batch_violation(), load.batch_violation);
}

TEST(LayerRunTest, TheBiasLevelsTheLoadWhenQualityIsNoBound) {
  LayerRun run(kLayer, Sign(1));
  const LayerLoad load = Zipf(1e6);
  for (int interval = 0; interval < 40; ++interval) {
    run.Run(load, 16);
  }
  EXPECT_LT(run.violation(), .1);
  EXPECT_GT(run.changed(), .2);
  EXPECT_NEAR(std::accumulate(run.assignments().begin(), run.assignments().end(), 0.0), 4e6, 1);
}

TEST(LayerRunTest, TheBudgetHolds) {
  LayerRun run(kLayer, Sign(.02f));
  const LayerLoad load = Zipf(1e6);
  run.Run(load, 1);
  const double before = run.violation();
  for (int interval = 0; interval < 40; ++interval) {
    run.Run(load, 16);
    ASSERT_LE(run.changed(), .02);
  }
  EXPECT_GT(run.changed(), .01);
  EXPECT_LT(run.violation(), before);
}

// The steps are those of balance::LayerBias itself.
TEST(LayerRunTest, MovesTheBiasAsTheLiveOneMoves) {
  LayerRun run(kLayer, Sign(1));
  const LayerLoad load = Zipf(1e5);
  balance::LayerBias live(Sign(1), std::vector<float>(64), std::vector<float>(64));
  balance::LayerWindow window;
  std::vector<uint64_t> counts;
  for (const double assignments : load.assignments) {
    counts.push_back(static_cast<uint64_t>(std::llround(assignments)));
  }
  window.tokens = 100'000;
  window.compared = window.tokens;
  window.assignments = counts;
  live.Step(window);
  run.Run(load, 1);
  EXPECT_EQ(run.bias(), live.bias());
}

TEST(LayerRunTest, FewTokensWaitForMore) {
  LayerRun run(kLayer, Sign(1));
  const LayerLoad load = Zipf(1000);  // A step takes 2048.
  run.Run(load, 16);
  run.Run(load, 16);
  EXPECT_EQ(run.bias(), std::vector<float>(64));
  run.Run(load, 16);
  EXPECT_NE(run.bias(), std::vector<float>(64));
}

TEST(LayerRunTest, CountsAloneAreNotSteered) {
  LayerRun run(kLayer, Sign(1));
  LayerLoad load = Zipf(1e5);
  load.log_weights.clear();
  run.Run(load, 16);
  EXPECT_EQ(run.assignments(), load.assignments);
  EXPECT_EQ(run.bias(), std::vector<float>(64));
}

}  // namespace
}  // namespace expertmesh::replay
