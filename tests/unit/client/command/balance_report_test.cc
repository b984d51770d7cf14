#include "client/cpp/command/balance_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace expertmesh::command {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(BalanceReportTest, EveryMeasureHasAColumn) {
  client::LayerMeasures measures;
  measures.batch_max_violation = 1.25;
  measures.load_variation = 2.25;
  measures.load_entropy = 0.125;
  measures.mean_squared_share = 0.0625;
  measures.dead_experts = 3;
  measures.sampled_tokens = 4096;
  measures.switch_loss = 5.5;
  measures.gshard_loss = 6.5;
  measures.megatron_loss = 7.5;
  measures.sequence_loss = 0.00085;
  measures.importance_loss = 9.5;
  measures.z_loss = 10.5;
  measures.second_place_loss = 11.5;
  client::LayerBalance layer;
  layer.layer = 4;
  layer.measures = measures;
  client::LayerBalance unsampled = layer;
  unsampled.layer = 7;
  unsampled.measures->sampled_tokens = 0;
  unsampled.measures->collapse = "dead: experts 0-2";
  client::LayerBalance untold;
  untold.layer = 9;
  EXPECT_THAT(
      DescribeMeasures({layer, unsampled, untold}),
      AllOf(HasSubstr("layer  MaxVio(batch)    CV  entropy  dead  squared share  sampled  Switch  "
                      "GShard  Megatron  sequence  importance     z  second\n"),
            HasSubstr("    4           1.25  2.25    0.125     3         0.0625    4,096     5.5  "
                      "   6.5       7.5   0.00085         9.5  10.5    11.5\n"),
            HasSubstr("    7           1.25  2.25    0.125     3         0.0625        0       -  "
                      "     -         -         -           -     -       -\n"),
            HasSubstr("layer 7: dead: experts 0-2\n"), Not(HasSubstr("\n    9"))));
}

TEST(BalanceReportTest, AnOldRouterHasNoMeasures) {
  client::LayerBalance untold;
  EXPECT_EQ(DescribeMeasures({untold}), "the router is too old to tell these measures\n");
}

}  // namespace
}  // namespace expertmesh::command
