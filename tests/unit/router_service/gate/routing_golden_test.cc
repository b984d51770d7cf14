// Every case of tests/golden/routing, which is written by a script that knows the formulas and
// nothing of this code.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "router_service/gate/routing.h"

namespace expertmesh {
namespace {

using nlohmann::json;

std::string TestName(const ::testing::TestParamInfo<const char*>& info) { return info.param; }

RoutingOptions OptionsOf(const json& from) {
  RoutingOptions options;
  options.num_experts = from.at("num_experts");
  options.top_k = from.at("top_k");
  options.score = from.at("score") == "softmax"   ? ScoreFunction::kSoftmax
                  : from.at("score") == "sigmoid" ? ScoreFunction::kSigmoid
                                                  : ScoreFunction::kIdentity;
  options.scope = from.at("scope") == "all" ? ScoreScope::kAll : ScoreScope::kSelected;
  options.select_bias = from.at("select_bias");
  options.n_group = from.at("n_group");
  options.topk_group = from.at("topk_group");
  options.group_score = from.at("group_score") == "max" ? GroupScore::kMax : GroupScore::kTopTwoSum;
  options.masked_choice =
      from.at("masked_choice") == "-inf" ? -std::numeric_limits<float>::infinity() : 0.0f;
  options.renormalise = from.at("renormalise") == "sum" ? Renormalise::kSum : Renormalise::kNone;
  options.renormalise_epsilon = from.at("renormalise_epsilon");
  options.scale = from.at("scale");
  options.weight_dtype =
      from.at("weight_dtype") == "model" ? WeightDType::kModel : WeightDType::kF32;
  return options;
}

std::vector<float> Flatten(const json& rows) {
  std::vector<float> flat;
  for (const json& row : rows) {
    for (const json& value : row) {
      flat.push_back(value.get<float>());
    }
  }
  return flat;
}

void CheckCase(const json& one, TieOrder ties) {
  SCOPED_TRACE(one.at("name").get<std::string>());
  const RoutingOptions options = OptionsOf(one.at("options"));
  ASSERT_TRUE(ValidateRouting(options).ok()) << ValidateRouting(options);
  const DType model = one.at("model_dtype") == "BF16" ? DType::kBF16 : DType::kF32;
  const auto bias = one.at("select_bias").get<std::vector<float>>();
  const size_t tokens = one.at("logits").size();
  const size_t k = options.top_k;
  ASSERT_GT(tokens, 0u);
  std::vector<uint32_t> ids(tokens * k);
  std::vector<float> weights(tokens * k);
  RoutingScratch scratch;
  RouteTokens(options, ties, model, Flatten(one.at("logits")), bias, tokens, absl::MakeSpan(ids),
              absl::MakeSpan(weights), &scratch);
  for (size_t token = 0; token < tokens; ++token) {
    const auto wanted = one.at("expert_ids")[token].get<std::vector<uint32_t>>();
    const auto wanted_weights = one.at("weights")[token].get<std::vector<float>>();
    EXPECT_EQ(std::vector<uint32_t>(ids.begin() + static_cast<ptrdiff_t>(token * k),
                                    ids.begin() + static_cast<ptrdiff_t>((token + 1) * k)),
              wanted);
    for (size_t slot = 0; slot < k; ++slot) {
      const float weight = wanted_weights.at(slot);
      EXPECT_NEAR(weights[token * k + slot], weight, 1e-6f * std::max(1.0f, std::abs(weight)))
          << "token " << token << " slot " << slot;
    }
  }
}

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  json Cases() const {
    const std::string path =
        std::string(EXPERTMESH_SOURCE_DIR "/tests/golden/routing/") + GetParam() + ".json";
    std::ifstream file(path);
    EXPECT_TRUE(file) << path;
    return json::parse(file);
  }
};

INSTANTIATE_TEST_SUITE_P(Files, GoldenTest,
                         ::testing::Values("literal", "mixtral", "qwen3_moe", "deepseek_v3",
                                           "generic"),
                         TestName);

TEST_P(GoldenTest, ExpertsAndWeights) {
  const json cases = Cases();
  ASSERT_GT(cases.size(), 1u);
  for (const json& one : cases) {
    CheckCase(one, TieOrder::kLowestIndex);
  }
}

// Without ties both orders are the same (a choice masked by 0 is a tie).
TEST_P(GoldenTest, TorchOrderAgreesWhereNothingTies) {
  for (const json& one : Cases()) {
    if (one.at("name") != "negative bias, masked by 0") {
      CheckCase(one, TieOrder::kTorchCpu);
    }
  }
}

}  // namespace
}  // namespace expertmesh
