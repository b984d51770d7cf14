// Every case of tests/golden/balance/measures.json, which numpy wrote.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/balance/measures.h"

namespace expertmesh::balance {
namespace {

using nlohmann::json;

// What a case's tokens from `first` to before `last` add up to.
struct Added {
  Added(const json& one, size_t first, size_t last, bool sigmoid)
      : scores(one.at("experts").get<uint32_t>()),
        counts(one.at("experts").get<size_t>()),
        first_choices(counts.size()) {
    for (size_t token = first; token < last; ++token) {
      const auto logits = one.at("logits").at(token).get<std::vector<float>>();
      if (sigmoid) {
        scores.AddSigmoidLogits(logits);
      } else {
        scores.AddSoftmaxLogits(logits);
      }
      const auto experts = one.at("chosen").at(token).get<std::vector<uint32_t>>();
      scores.AddWeights(experts, one.at("weights").at(token).get<std::vector<float>>());
      scores.AddSecondChoice(experts[0], one.at("second").at(token).get<uint32_t>());
      ++first_choices[experts[0]];
      for (const uint32_t expert : experts) {
        ++counts[expert];
      }
    }
    tokens = {scores.tokens(), one.at("top_k"), counts, scores.probability_sums()};
  }
  Added(const Added&) = delete;

  ScoreAccumulator scores;
  std::vector<uint64_t> counts;
  std::vector<uint64_t> first_choices;
  ScoredTokens tokens;
};

class MeasuresGoldenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(EXPERTMESH_SOURCE_DIR "/tests/golden/balance/measures.json");
    cases_ = json::parse(file);
    ASSERT_EQ(cases_.size(), 3u);
  }

  json cases_;
};

void ExpectNear(const json& one, const char* key, double value) {
  const double expected = one.at(key);
  EXPECT_NEAR(value, expected, 2e-6 * std::max(1.0, std::abs(expected))) << one["name"] << key;
}

TEST_F(MeasuresGoldenTest, Counts) {
  for (const json& one : cases_) {
    const Added all(one, 0, one["logits"].size(), false);
    ASSERT_EQ(json(all.counts), one["counts"]);
    ExpectNear(one, "max_violation", MaxViolation(all.counts));
    const double variation = CoefficientOfVariation(all.counts);
    ExpectNear(one, "squared_variation", variation * variation);
    ExpectNear(one, "entropy", NormalisedEntropy(all.counts));
    ExpectNear(one, "mean_squared_share", MeanSquaredShare(all.counts));
  }
}

TEST_F(MeasuresGoldenTest, Losses) {
  for (const json& one : cases_) {
    const size_t tokens = one["logits"].size();
    const Added all(one, 0, tokens, false);
    const Added head(one, 0, tokens / 2, false);
    const Added tail(one, tokens / 2, tokens, false);
    const Added sigmoid(one, 0, tokens, true);
    ExpectNear(one, "switch", SwitchLoss(all.tokens, FractionConvention::kAllSlots));
    ExpectNear(one, "megatron", MegatronLoss(all.tokens));
    ExpectNear(one, "gshard", GshardLoss(all.first_choices, tokens, all.scores.probability_sums()));
    ExpectNear(one, "megatron_global", MegatronGlobalLoss(head.tokens, all.counts, tokens));
    ExpectNear(one, "megablocks_halves", MegaBlocksLoss({head.tokens, tail.tokens}, 0.1));
    const auto experts = static_cast<double>(all.counts.size());
    ExpectNear(one, "nllb",
               experts * experts * GshardLoss(all.first_choices, tokens, all.scores.importance()));
    ExpectNear(one, "second_place", all.scores.SecondPlaceLoss());
    ExpectNear(one, "mesh_tensorflow", MeshTensorFlowLoss(all.first_choices, all.scores));
    ExpectNear(one, "hugging_face_halves", HuggingFaceLoss({head.tokens, tail.tokens}));
    // These are small: compare them without their alpha.
    EXPECT_NEAR(DeepSeekV2SequenceLoss({head.tokens, tail.tokens}) * 1e3,
                one["deepseek_v2"].get<double>() * 1e3, 2e-6);
    EXPECT_NEAR(DeepSeekV3SequenceLoss(sigmoid.tokens) * 1e4,
                one["deepseek_v3"].get<double>() * 1e4, 2e-6);
    ExpectNear(one, "z_loss", all.scores.ZLoss());
    ExpectNear(one, "importance_loss", all.scores.ImportanceLoss());
    for (size_t i = 0; i < all.scores.importance().size(); ++i) {
      EXPECT_NEAR(all.scores.importance()[i], one["importance"][i].get<double>(), 1e-6);
    }
  }
}

TEST_F(MeasuresGoldenTest, NoisyTopKLoad) {
  for (const json& one : cases_) {
    std::vector<float> clean;
    std::vector<float> noisy;
    for (size_t token = 0; token < one["logits"].size(); ++token) {
      for (size_t i = 0; i < one["experts"]; ++i) {
        clean.push_back(one["logits"][token][i]);
        noisy.push_back(one["noisy"][token][i]);
      }
    }
    const std::vector<float> deviations(clean.size(), one["deviation"].get<float>());
    const std::vector<double> load =
        NoisyTopKLoad(clean, noisy, deviations, one["experts"], one["top_k"]);
    for (size_t i = 0; i < load.size(); ++i) {
      EXPECT_NEAR(load[i], one["noisy_load"][i].get<double>(), 1e-5) << one["name"] << i;
    }
    const double variation = CoefficientOfVariation(load);
    ExpectNear(one, "noisy_load_loss", variation * variation);
  }
}

}  // namespace
}  // namespace expertmesh::balance
