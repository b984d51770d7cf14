#include "client/cpp/command/generation_report.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

TEST(LoadBarsTest, ShowsEveryExpertThatHadAnything) {
  EXPECT_EQ(LoadBars({}, 8), "");
  EXPECT_EQ(LoadBars({0, 1, 100, 50, 101}, 8), "·▁█▄█");
  EXPECT_EQ(LoadBars({1, 8, 4}, 8), "▁█▄");
  EXPECT_EQ(LoadBars({0, 0}, 8), "··");
}

TEST(LoadBarsTest, TakesExpertsTogetherWhenTheyAreMany) {
  EXPECT_EQ(LoadBars({0, 0, 4, 4, 1, 0}, 3), "·█▁");
  EXPECT_EQ(LoadBars(std::vector<uint64_t>(256, 1), 64).size(), 64 * std::string("█").size());
}

ModelDescription OneLayer() {
  ModelDescription model;
  MoeLayerDescription layer;
  layer.layer = 3;
  layer.routing.num_experts = 4;
  model.layers = {layer};
  return model;
}

TEST(GenerationReportTest, SharesAddUpAndLoadsAreCounted) {
  GenerationReport report(OneLayer());
  decoder::MoeResult result;
  result.expert_ids = {0, 1, 1, 3};
  result.timing.queue_us = 100;
  result.timing.route_us = 200;
  result.timing.combine_us = 100;
  result.timing.node_queue_us = 100;
  result.timing.node_compute_us = 3000;
  result.timing.nodes = 2;
  report.OnMoe(3, 2, absl::Milliseconds(5), result);
  report.OnForward(absl::Milliseconds(2), absl::Milliseconds(8));
  const nlohmann::json json = report.Json(4, absl::Milliseconds(10));
  const nlohmann::json& shares = json["time_shares"];
  EXPECT_NEAR(shares["attention"].get<double>(), 0.2, 1e-9);
  EXPECT_NEAR(shares["experts"].get<double>(), 0.3, 1e-9);
  EXPECT_NEAR(shares["router"].get<double>(), 0.03, 1e-9);
  EXPECT_NEAR(shares["queues"].get<double>(), 0.02, 1e-9);
  // What is left of the 5 ms.
  EXPECT_NEAR(shares["wire"].get<double>(), 0.15, 1e-9);
  double sum = 0;
  for (const auto& share : shares) {
    sum += share.get<double>();
  }
  EXPECT_NEAR(sum, 1.0, 1e-9);
  EXPECT_EQ(json["tokens_per_second"].get<double>(), 400.0);
  const nlohmann::json& layer = json["layers"][0];
  EXPECT_EQ(layer["layer"], 3);
  EXPECT_EQ(layer["load"], (std::vector<uint64_t>{1, 2, 0, 1}));
  EXPECT_EQ(layer["max_violation"].get<double>(), 1.0);
  EXPECT_EQ(layer["p50_ms"].get<double>(), 5.0);
  const std::string text = report.Text(4, absl::Milliseconds(10));
  EXPECT_NE(text.find("attention 20%"), std::string::npos) << text;
  EXPECT_NE(text.find("▄█·▄"), std::string::npos) << text;
}

TEST(GenerationReportTest, WithoutAMeshAllOfTheExpertsIsComputing) {
  GenerationReport report(OneLayer());
  report.OnMoe(3, 1, absl::Milliseconds(5), decoder::MoeResult());
  report.OnForward(absl::ZeroDuration(), absl::Milliseconds(10));
  const nlohmann::json json = report.Json(1, absl::Milliseconds(10));
  EXPECT_NEAR(json["time_shares"]["experts"].get<double>(), 0.5, 1e-9);
  EXPECT_NEAR(json["time_shares"]["wire"].get<double>(), 0.0, 1e-9);
}

}  // namespace
}  // namespace expertmesh::command
