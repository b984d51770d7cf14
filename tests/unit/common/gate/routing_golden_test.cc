// Every case of tests/golden/routing, which is written by a script that knows the formulas and
// nothing of this code.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/gate/routing.h"
#include "common/model/routing_json.h"

namespace expertmesh::gate {
namespace {

using nlohmann::json;

std::string TestName(const ::testing::TestParamInfo<const char*>& info) { return info.param; }

RoutingOptions OptionsOf(json from) {
  RoutingOptions options;
  options.num_experts = from.at("num_experts");
  options.select_bias = from.value("select_bias", false);
  from.erase("num_experts");  // These two belong to a checkpoint's weights.
  from.erase("select_bias");
  const absl::StatusOr<RoutingOptions> read = WithRoutingJson(options, from.dump());
  EXPECT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(ValidateRouting(*read).ok()) << ValidateRouting(*read);
  return *read;
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

// The numbers of the file.
class FileRandom final : public RandomSource {
 public:
  explicit FileRandom(json draws) : draws_(std::move(draws)) {}

  float Uniform(RandomUse use, const RandomKey& key, uint32_t index) const override {
    EXPECT_EQ(key.seed, 7u);
    const char* const names[] = {"noise", "noise_angle", "jitter", "second_expert"};
    return draws_.at(key.token).at(names[static_cast<size_t>(use)]).at(index).get<float>();
  }

 private:
  const json draws_;
};

void ExpectRouted(const json& one, const RoutedTokens& routed, float tolerance) {
  const size_t tokens = one.at("expert_ids").size();
  ASSERT_EQ(routed.tokens(), tokens);
  std::vector<DroppedAssignment> dropped;
  for (size_t token = 0; token < tokens; ++token) {
    SCOPED_TRACE(testing::Message() << "token " << token);
    const auto wanted = one.at("expert_ids")[token].get<std::vector<uint32_t>>();
    const auto weights = one.at("weights")[token].get<std::vector<float>>();
    const uint32_t begin = routed.token_begin[token];
    const uint32_t end = routed.token_begin[token + 1];
    EXPECT_EQ(
        std::vector<uint32_t>(routed.expert_ids.begin() + begin, routed.expert_ids.begin() + end),
        wanted);
    for (size_t slot = 0; slot < std::min<size_t>(weights.size(), end - begin); ++slot) {
      EXPECT_NEAR(routed.weights[begin + slot], weights[slot],
                  tolerance * std::max(1.0f, std::abs(weights[slot])))
          << "slot " << slot;
    }
    if (one.contains("dropped")) {
      for (const json& expert : one.at("dropped")[token]) {
        dropped.push_back({static_cast<uint32_t>(token), expert.get<uint32_t>()});
      }
    }
  }
  if (!one.value("dropped_unknown", false)) {
    EXPECT_EQ(routed.dropped, dropped);
  }
}

void CheckCase(const json& one, TieOrder ties) {
  SCOPED_TRACE(one.at("name").get<std::string>());
  const Dtype model = one.at("activation_dtype") == "BF16" ? Dtype::kBF16 : Dtype::kF32;
  const FileRandom random(one.value("draws", json::array()));
  const RoutingRules rules{OptionsOf(one.at("options")), ties, model, &random};
  const auto bias = one.at("select_bias").get<std::vector<float>>();
  const std::vector<float> logits = Flatten(one.at("logits"));
  const std::vector<float> width = Flatten(one.value("noise_width", json::array()));
  const auto group_sizes = one.value("group_sizes", std::vector<uint32_t>());
  const auto token_ids = one.value("token_ids", std::vector<uint32_t>());
  const RequestTokens request{one.at("logits").size(), group_sizes, token_ids, 7};
  ASSERT_GT(request.tokens, 0u);
  ASSERT_TRUE(CheckRequestTokens(rules.options, request).ok());
  RoutingScratch scratch;
  RoutedTokens routed;
  RouteTokens(rules, {{&request, 1}, logits, {.checkpoint = bias}, width}, &scratch, &routed);
  ExpectRouted(one, routed, 1e-6f);
}

json ReadGolden(const std::string& name) {
  const std::string path = EXPERTMESH_SOURCE_DIR "/tests/golden/routing/" + name + ".json";
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  return json::parse(file);
}

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  json Cases() const { return ReadGolden(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(Files, GoldenTest,
                         ::testing::Values("literal", "mixtral", "qwen3_moe", "deepseek_v3",
                                           "generic", "families", "papers"),
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

// Recorded from the models themselves by record_transformers.py, in torch's order of ties.
TEST(RecordedTest, RoutersOfTheTransformersLibrary) {
  const json cases = ReadGolden("transformers");
  ASSERT_GT(cases.size(), 30u);
  for (const json& one : cases) {
    CheckCase(one, TieOrder::kTorchCpu);
  }
}

}  // namespace
}  // namespace expertmesh::gate
