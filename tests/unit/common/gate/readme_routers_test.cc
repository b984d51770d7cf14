// Every line of the table in router_service/README.md, Routers, works on every kind of checkpoint.
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/gate/routing.h"
#include "common/model/routing_json.h"

namespace expertmesh::gate {
namespace {

// Name and JSON of the table in section "Routers".
std::vector<std::pair<std::string, std::string>> ReadmeRouters() {
  std::ifstream file(EXPERTMESH_SOURCE_DIR "/router_service/README.md");
  std::vector<std::pair<std::string, std::string>> routers;
  bool in_section = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) {
      in_section = line == "## Routers";
    }
    const size_t begin = line.find("`{");
    const size_t end = line.find("}`");
    if (in_section && line.starts_with("| ") && begin != std::string::npos) {
      EXPECT_NE(end, std::string::npos) << line;
      routers.emplace_back(line.substr(2, line.find(" | ") - 2),
                           line.substr(begin + 1, end - begin));
    }
  }
  return routers;
}

// Options that the families of checkpoints bring along.
std::vector<std::pair<std::string, RoutingOptions>> Checkpoints() {
  RoutingOptions mixtral;
  mixtral.num_experts = 8;
  mixtral.top_k = 2;
  mixtral.logit_dtype = LogitDtype::kModel;
  mixtral.renormalise = Renormalise::kSum;
  RoutingOptions deepseek_v3;
  deepseek_v3.num_experts = 256;
  deepseek_v3.top_k = 8;
  deepseek_v3.score = ScoreFunction::kSigmoid;
  deepseek_v3.select_bias = true;
  deepseek_v3.n_group = 8;
  deepseek_v3.topk_group = 4;
  deepseek_v3.group_score = GroupScore::kTopTwoSum;
  deepseek_v3.masked_choice = -std::numeric_limits<float>::infinity();
  deepseek_v3.renormalise = Renormalise::kSum;
  deepseek_v3.renormalise_epsilon = 1e-20f;
  deepseek_v3.scale = 2.5f;
  RoutingOptions gpt_oss;
  gpt_oss.num_experts = 32;
  gpt_oss.top_k = 4;
  gpt_oss.logit_bias = true;
  gpt_oss.scope = ScoreScope::kSelected;
  gpt_oss.score_dtype = ScoreDtype::kModel;
  RoutingOptions llama4 = gpt_oss;
  llama4.num_experts = 16;
  llama4.top_k = 1;
  llama4.logit_bias = false;
  llama4.score = ScoreFunction::kSigmoid;
  llama4.apply = ApplyWeight::kInput;
  RoutingOptions phi;
  phi.num_experts = 16;
  phi.top_k = 2;
  phi.choice = Choice::kSparseMixer;
  phi.sparse_mixer_epsilon = 0.01f;
  RoutingOptions nllb;
  nllb.num_experts = 128;
  nllb.top_k = 2;
  nllb.renormalise = Renormalise::kClampedSum;
  nllb.renormalise_after_drop = true;
  nllb.capacity.factor = 1.0f;
  nllb.scale = 0.8f;
  return {{"Mixtral", mixtral}, {"DeepSeek-V3", deepseek_v3}, {"gpt-oss", gpt_oss},
          {"Llama-4", llama4},  {"Phi-3.5-MoE", phi},         {"NLLB-MoE", nllb}};
}

void RouteSome(const RoutingOptions& options) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> logits(40 * options.num_experts);
  for (float& logit : logits) {
    logit = normal(random);
  }
  std::vector<float> bias(options.num_experts, 0.0f);
  std::vector<uint32_t> token_ids(40);
  for (uint32_t& id : token_ids) {
    id = static_cast<uint32_t>(random());
  }
  const RequestTokens request{40, {}, token_ids, 1};
  RoutingScratch scratch;
  RoutedTokens routed;
  RouteTokens({options}, {{&request, 1}, logits, {.checkpoint = bias}}, &scratch, &routed);
  ASSERT_EQ(routed.tokens(), 40u);
  EXPECT_GT(routed.expert_ids.size(), 20u);
  for (const uint32_t expert : routed.expert_ids) {
    EXPECT_LT(expert, options.num_experts);
  }
}

TEST(ReadmeRouters, EveryLineWorksOnEveryCheckpoint) {
  const auto routers = ReadmeRouters();
  ASSERT_GE(routers.size(), 12u);
  for (const auto& [name, json] : routers) {
    for (const auto& [checkpoint, base] : Checkpoints()) {
      SCOPED_TRACE(absl::StrCat(name, " on ", checkpoint));
      const bool groups = name == "DeepSeek-V2" || name == "DeepSeek-V3";
      if (groups && base.num_experts < 16) {
        continue;  // As the page says.
      }
      const absl::StatusOr<RoutingOptions> options = WithRoutingJson(base, json);
      ASSERT_TRUE(options.ok()) << options.status();
      ASSERT_TRUE(ValidateRouting(*options).ok()) << ValidateRouting(*options);
      RouteSome(*options);
    }
  }
}

}  // namespace
}  // namespace expertmesh::gate
