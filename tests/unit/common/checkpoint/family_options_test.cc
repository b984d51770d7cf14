// What each family's config.json means, by the table of its published code: routing, experts, which
// layers have experts; and what is refused.

#include <limits>
#include <string>
#include <vector>

#include "common/checkpoint/families.h"
#include "common/model/routing_json.h"
#include "nlohmann/json.hpp"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;
using nlohmann::json;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

json Golden(const std::string& name) {
  return json::parse(ReadFile(std::string(EXPERTMESH_SOURCE_DIR) + "/tests/golden/configs/" + name +
                              "/config.json"));
}

absl::StatusOr<ModelLayout> Read(const json& config) {
  const auto reader = JsonReader::FromText(config.dump(), "config.json");
  return reader.ok() ? ReadModelLayout(*reader) : reader.status();
}

ModelDescription Model(const json& config) {
  const auto layout = Read(config);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return layout.ok() ? layout->model : ModelDescription{};
}

RoutingOptions Routing(const json& config) { return Model(config).layers.at(0).routing; }

std::vector<uint32_t> MoeLayers(const ModelDescription& model) {
  std::vector<uint32_t> layers;
  for (const MoeLayerDescription& layer : model.layers) {
    layers.push_back(layer.layer);
  }
  return layers;
}

// `config` with `key` set to `value` is refused; the message names the key.
void ExpectRefused(json config, const std::string& key, const json& value) {
  config[key] = value;
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "config.json", key);
}

// --- The table ---

struct Expected {
  std::string model;
  RoutingOptions routing;
  ExpertOptions expert;
  uint32_t shared = 0;
  bool shared_gate = false;
};

void PrintTo(const Expected& expected, std::ostream* out) { *out << expected.model; }

// Options of most families: logits and weights in the activations' dtype, softmax over all experts.
RoutingOptions InModelDtype(uint32_t experts, uint32_t top_k) {
  RoutingOptions routing;
  routing.num_experts = experts;
  routing.top_k = top_k;
  routing.logit_dtype = LogitDtype::kModel;
  routing.weight_dtype = WeightDtype::kModel;
  return routing;
}

RoutingOptions With(RoutingOptions routing, const std::function<void(RoutingOptions*)>& change) {
  change(&routing);
  return routing;
}

RoutingOptions Deepseek(uint32_t experts, uint32_t top_k, float scale) {
  RoutingOptions routing = InModelDtype(experts, top_k);
  routing.logit_dtype = LogitDtype::kF32;
  routing.weight_dtype = WeightDtype::kF32;
  routing.sorted_selection = false;
  routing.scale = scale;
  return routing;
}

RoutingOptions DeepseekV3(uint32_t experts, uint32_t groups, uint32_t kept, float scale) {
  return With(Deepseek(experts, 8, scale), [&](RoutingOptions* routing) {
    routing->score = ScoreFunction::kSigmoid;
    routing->select_bias = true;
    routing->n_group = groups;
    routing->topk_group = kept;
    routing->group_score = GroupScore::kTopTwoSum;
    routing->masked_choice = kMinusInfinity;
    routing->renormalise = Renormalise::kSum;
    routing->renormalise_epsilon = 1e-20f;
  });
}

std::vector<Expected> Table() {
  const auto renormalised = [](RoutingOptions* routing) {
    routing->renormalise = Renormalise::kSum;
  };
  const auto of_selected = [](RoutingOptions* routing) { routing->scope = ScoreScope::kSelected; };
  const auto float_gate = [](RoutingOptions* routing) {
    routing->logit_dtype = LogitDtype::kF32;
    routing->score_dtype = ScoreDtype::kModel;
  };
  return {
      {"mixtral-8x7b", With(InModelDtype(8, 2), renormalised), {4096, 14336}},
      {"deepseek-moe-16b", Deepseek(64, 6, 1.0f), {2048, 1408}, 2816},
      {"deepseek-v2-lite", Deepseek(64, 6, 1.0f), {2048, 1408}, 2816},
      {"deepseek-v2",
       With(Deepseek(160, 6, 16.0f),
            [](RoutingOptions* routing) {
              routing->n_group = 8;
              routing->topk_group = 3;
              routing->group_score = GroupScore::kMax;
              routing->masked_choice = 0.0f;
            }),
       {5120, 1536},
       3072},
      {"deepseek-v3", DeepseekV3(256, 8, 4, 2.5f), {7168, 2048}, 2048},
      {"glm-4.5", DeepseekV3(160, 1, 1, 2.5f), {5120, 1536}, 1536},
      {"glm-4.5-air", DeepseekV3(128, 1, 1, 1.0f), {4096, 1408}, 1408},
      {"qwen1.5-moe-a2.7b", InModelDtype(60, 4), {2048, 1408}, 5632, true},
      {"qwen2-57b-a14b", InModelDtype(64, 8), {3584, 2560}, 20480, true},
      {"qwen3-30b-a3b", With(InModelDtype(128, 8), renormalised), {2048, 768}},
      {"olmoe-1b-7b", InModelDtype(64, 8), {2048, 1024}},
      {"granite-3-1b-a400m", With(InModelDtype(32, 8), of_selected), {1024, 512}},
      {"gpt-oss-120b",
       With(InModelDtype(128, 4),
            [](RoutingOptions* routing) {
              routing->logit_bias = true;
              routing->scope = ScoreScope::kSelected;
              routing->score_dtype = ScoreDtype::kModel;
            }),
       {.d_model = 2880,
        .intermediate_size = 2880,
        .activation = Activation::kClampedSwiglu,
        .bias = true,
        .swiglu_limit = 7.0f}},
      {"llama-4-maverick",
       With(InModelDtype(128, 1),
            [](RoutingOptions* routing) {
              routing->score = ScoreFunction::kSigmoid;
              routing->scope = ScoreScope::kSelected;
              routing->apply = ApplyWeight::kInput;
            }),
       {5120, 8192},
       8192},
      {"phi-3.5-moe",
       With(InModelDtype(16, 2),
            [](RoutingOptions* routing) {
              routing->choice = Choice::kSparseMixer;
              routing->sparse_mixer_epsilon = 0.01f;
              routing->score_dtype = ScoreDtype::kModel;
            }),
       {4096, 6400}},
      {"dbrx",
       With(InModelDtype(16, 4),
            [](RoutingOptions* routing) {
              routing->renormalise = Renormalise::kLp;
              routing->renormalise_p = 1.0f;
            }),
       {6144, 10752}},
      {"jamba-v0.1", InModelDtype(16, 2), {4096, 14336}},
      {"switch-base-8",
       With(With(InModelDtype(8, 1), float_gate),
            [](RoutingOptions* routing) { routing->capacity.tokens = 64; }),
       {.d_model = 768,
        .intermediate_size = 3072,
        .activation = Activation::kRelu,
        .gated = false}},
      {"nllb-moe-54b",
       With(With(InModelDtype(128, 2), float_gate),
            [](RoutingOptions* routing) {
              routing->renormalise = Renormalise::kDtypeClampedSum;
              routing->renormalise_after_drop = true;
              routing->scale = 0.8f;
            }),
       {.d_model = 2048,
        .intermediate_size = 8192,
        .activation = Activation::kRelu,
        .gated = false,
        .bias = true}},
  };
}

class FamilyOptionsTest : public testing::TestWithParam<Expected> {};

TEST_P(FamilyOptionsTest, AreThoseOfThePublishedCode) {
  const ModelDescription model = Model(Golden(GetParam().model));
  ASSERT_FALSE(model.layers.empty());
  for (const MoeLayerDescription& layer : model.layers) {
    EXPECT_EQ(RoutingJson(layer.routing), RoutingJson(GetParam().routing));
    EXPECT_EQ(layer.expert, GetParam().expert);
    EXPECT_EQ(layer.shared_intermediate_size, GetParam().shared);
    EXPECT_EQ(layer.shared_gate, GetParam().shared_gate);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, FamilyOptionsTest, testing::ValuesIn(Table()),
                         [](const auto& info) {
                           std::string name = info.param.model;
                           for (char& c : name) {
                             c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           }
                           return name;
                         });

// --- Extras, which have no golden file ---

json Extra(const std::string& model_type, const json& more) {
  json config = {
      {"model_type", model_type}, {"dtype", "bfloat16"},         {"hidden_size", 64},
      {"num_hidden_layers", 4},   {"vocab_size", 100},           {"num_attention_heads", 4},
      {"intermediate_size", 128}, {"moe_intermediate_size", 32}, {"num_key_value_heads", 2}};
  config.update(more);
  return config;
}

TEST(FamilyOptions, MinimaxM2) {
  const json config = Extra("minimax_m2", {{"num_local_experts", 8}, {"num_experts_per_tok", 3}});
  RoutingOptions expected = InModelDtype(8, 3);
  expected.score = ScoreFunction::kSigmoid;
  expected.select_bias = true;
  expected.sorted_selection = false;
  expected.renormalise = Renormalise::kSum;
  EXPECT_EQ(RoutingJson(Routing(config)), RoutingJson(expected));
  ExpectRefused(config, "scoring_func", "softmax");
}

TEST(FamilyOptions, Lfm2Moe) {
  const json config =
      Extra("lfm2_moe", {{"num_experts", 8},
                         {"num_experts_per_tok", 3},
                         {"num_dense_layers", 1},
                         {"routed_scaling_factor", 1.5},
                         {"layer_types", {"conv", "full_attention", "conv", "conv"}}});
  RoutingOptions expected = InModelDtype(8, 3);
  expected.score = ScoreFunction::kSigmoid;
  expected.score_dtype = ScoreDtype::kModel;
  expected.select_bias = true;
  expected.renormalise = Renormalise::kSum;
  expected.renormalise_epsilon = 1e-6f;
  expected.scale = 1.5f;
  EXPECT_EQ(RoutingJson(Routing(config)), RoutingJson(expected));
  EXPECT_THAT(MoeLayers(Model(config)), testing::ElementsAre(1, 2, 3));
  ExpectRefused(config, "layer_types", {"conv"});
  ExpectRefused(config, "layer_types", {"conv", "conv", "conv", "mamba"});
}

TEST(FamilyOptions, Ernie45Moe) {
  json config = Extra("ernie4_5_moe", {{"moe_num_experts", 8},
                                       {"moe_k", 3},
                                       {"moe_num_shared_experts", 2},
                                       {"moe_norm_min", 1e-10},
                                       {"moe_layer_interval", 2},
                                       {"moe_layer_start_index", 1},
                                       {"moe_layer_end_index", -1}});
  RoutingOptions expected = InModelDtype(8, 3);
  expected.logit_dtype = LogitDtype::kF32;
  expected.select_bias = true;
  expected.renormalise = Renormalise::kClampedSum;
  expected.renormalise_epsilon = 1e-10f;
  EXPECT_EQ(RoutingJson(Routing(config)), RoutingJson(expected));
  EXPECT_EQ(Model(config).layers[0].shared_intermediate_size, 64u);
  EXPECT_THAT(MoeLayers(Model(config)), testing::ElementsAre(1, 3));
  config["moe_layer_end_index"] = 2;
  EXPECT_THAT(MoeLayers(Model(config)), testing::ElementsAre(1));
  ExpectRefused(config, "use_bias", true);
}

// --- Variants ---

TEST(FamilyOptions, DeepseekV2ScalesOrRenormalisesButNeverBoth) {
  json config = Golden("deepseek-v2");
  config["norm_topk_prob"] = true;
  RoutingOptions routing = Routing(config);
  EXPECT_EQ(routing.renormalise, Renormalise::kSum);
  EXPECT_EQ(routing.renormalise_epsilon, 1e-20f);
  EXPECT_EQ(routing.scale, 1.0f);
  // transformers reads this otherwise, so it is said.
  ASSERT_EQ(Read(config)->warnings.size(), 1u);
  EXPECT_THAT(Read(config)->warnings[0], testing::HasSubstr("norm_topk_prob = true"));
  config["num_experts_per_tok"] = 1;
  routing = Routing(config);
  EXPECT_EQ(routing.renormalise, Renormalise::kNone);
  EXPECT_EQ(routing.scale, 16.0f);
  EXPECT_THAT(Read(config)->warnings, testing::IsEmpty());
}

TEST(FamilyOptions, DeepseekV2Methods) {
  json config = Golden("deepseek-v2-lite");
  const std::string greedy = RoutingJson(Routing(config));
  config["topk_method"] = "gready";
  EXPECT_EQ(RoutingJson(Routing(config)), greedy);
  // Greedy looks at no groups, whatever the config says of them.
  config["n_group"] = 8;
  config["topk_group"] = 3;
  EXPECT_EQ(RoutingJson(Routing(config)), greedy);
  config["topk_method"] = "noaux_tc";
  config["scoring_func"] = "sigmoid";
  config["norm_topk_prob"] = true;
  config["routed_scaling_factor"] = 2.0;
  const RoutingOptions biased = Routing(config);
  EXPECT_EQ(biased.score, ScoreFunction::kSigmoid);
  EXPECT_TRUE(biased.select_bias);
  EXPECT_EQ(biased.group_score, GroupScore::kTopTwoSum);
  EXPECT_EQ(biased.masked_choice, kMinusInfinity);
  EXPECT_EQ(biased.renormalise, Renormalise::kSum);
  EXPECT_EQ(biased.scale, 2.0f);
  ExpectRefused(config, "topk_method", "random");
  ExpectRefused(config, "scoring_func", "tanh");
}

TEST(FamilyOptions, DbrxNorms) {
  json config = Golden("dbrx");
  config["ffn_config"]["moe_normalize_expert_weights"] = 2.0;
  EXPECT_EQ(Routing(config).renormalise_p, 2.0f);
  config["ffn_config"]["moe_normalize_expert_weights"] = nullptr;
  EXPECT_EQ(Routing(config).renormalise, Renormalise::kNone);
  for (const json& value : {json(0.0), json(-1), json("1")}) {
    config["ffn_config"]["moe_normalize_expert_weights"] = value;
    ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "ffn_config",
                "moe_normalize_expert_weights");
  }
  config = Golden("dbrx");
  config["ffn_config"]["ffn_act_fn"] = {{"name", "gelu"}};
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "ffn_act_fn", "name", "'gelu'");
  config["ffn_config"] = 3;
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument,
              "ffn_config is 3; supported: an object");
  config.erase("ffn_config");
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "ffn_config", "moe_num_experts");
}

TEST(FamilyOptions, SwitchLayersAndCapacity) {
  json config = Golden("switch-base-8");
  EXPECT_THAT(MoeLayers(Model(config)),
              testing::ElementsAre(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23));
  EXPECT_EQ(Model(config).num_layers, 24u);
  config["num_sparse_encoder_layers"] = 12;
  config["num_sparse_decoder_layers"] = 3;
  config["num_decoder_layers"] = 6;
  config["expert_capacity"] = 7;
  const ModelDescription model = Model(config);
  EXPECT_THAT(MoeLayers(model),
              testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17));
  EXPECT_EQ(model.layers[0].routing.capacity.tokens, 7u);
  EXPECT_EQ(model.layers[0].routing.capacity.drop, DropPolicy::kPosition);
  config["router_bias"] = true;
  EXPECT_TRUE(Routing(config).logit_bias);
  ExpectRefused(config, "router_dtype", "bfloat16");
  ExpectRefused(config, "dense_act_fn", "gelu");
  ExpectRefused(config, "expert_capacity", 0);
  ExpectRefused(config, "num_sparse_encoder_layers", 13);
}

TEST(FamilyOptions, NllbPolicies) {
  json config = Golden("nllb-moe-54b");
  EXPECT_THAT(MoeLayers(Model(config)),
              testing::ElementsAre(3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47));
  config["second_expert_policy"] = "sampling";
  EXPECT_EQ(Routing(config).second_expert, SecondExpert::kSampled);
  config["second_expert_policy"] = "random";
  EXPECT_EQ(Routing(config).second_expert, SecondExpert::kRandom);
  EXPECT_EQ(Routing(config).second_expert_threshold, 0.5f);
  config["normalize_router_prob_before_dropping"] = true;
  EXPECT_FALSE(Routing(config).renormalise_after_drop);
  config["batch_prioritized_routing"] = true;
  EXPECT_EQ(Routing(config).capacity.drop, DropPolicy::kBatchPrioritised);
  EXPECT_TRUE(Routing(config).capacity.unlimited());
  // ceil(0.25 * tokens) = ceil(factor * 2 * tokens / 128).
  config["moe_eval_capacity_token_fraction"] = 0.25;
  EXPECT_EQ(Routing(config).capacity.factor, 16.0f);
  config["moe_eval_capacity_token_fraction"] = -1.0;
  EXPECT_EQ(Routing(config).capacity.tokens, 64u);
  config["expert_capacity"] = nullptr;
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "expert_capacity");
  ExpectRefused(Golden("nllb-moe-54b"), "second_expert_policy", "never");
  ExpectRefused(Golden("nllb-moe-54b"), "moe_token_dropout", 1.0);
  ExpectRefused(Golden("nllb-moe-54b"), "activation_function", "gelu");
}

// What a model is stored as is no part of how it routes: it may be computed in another type.
TEST(FamilyOptions, RoutingIsTheSameWhateverTheDtype) {
  for (const char* model : {"nllb-moe-54b", "switch-base-8", "phi-3.5-moe", "gpt-oss-20b"}) {
    json config = Golden(model);
    const std::string routing = RoutingJson(Routing(config));
    for (const char* dtype : {"bfloat16", "float16", "float32"}) {
      config.erase("torch_dtype");
      config["dtype"] = dtype;
      EXPECT_EQ(RoutingJson(Routing(config)), routing) << model;
    }
  }
}

TEST(FamilyOptions, JambaPattern) {
  json config = Golden("jamba-v0.1");
  config["num_hidden_layers"] = 6;
  EXPECT_THAT(MoeLayers(Model(config)), testing::ElementsAre(1, 3, 5));
  config["expert_layer_period"] = 3;
  config["expert_layer_offset"] = 0;
  EXPECT_THAT(MoeLayers(Model(config)), testing::ElementsAre(0, 3));
  ExpectRefused(config, "expert_layer_offset", 3);
  ExpectRefused(config, "attn_layer_offset", 8);
  ExpectRefused(config, "mamba_dt_rank", "manual");
}

TEST(FamilyOptions, Llama4Layers) {
  json config = Golden("llama-4-maverick");
  EXPECT_EQ(Model(config).layers.size(), 24u);
  EXPECT_EQ(Model(config).layers[0].layer, 1u);
  config["text_config"]["moe_layers"] = {0, 47};
  EXPECT_THAT(MoeLayers(Model(config)), testing::ElementsAre(0, 47));
  config["text_config"]["moe_layers"] = {48};
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "text_config",
              "moe_layers holds 48");
  config["text_config"] = "none";
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "text_config");
}

TEST(FamilyOptions, TextConfigInheritsWhatItLacks) {
  json config = Golden("llama-4-scout");
  config["text_config"].erase("torch_dtype");
  config["torch_dtype"] = "float16";
  config["tie_word_embeddings"] = true;
  config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {64, 32}}};
  auto layout = Read(config);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_TRUE(layout->dtype_known);
  EXPECT_EQ(layout->model.dtype, Dtype::kF16);
  EXPECT_TRUE(layout->tied_embeddings);
  EXPECT_EQ(layout->quantisation, "fp8");
  EXPECT_EQ(layout->fp8_block_rows, 64u);
  EXPECT_EQ(layout->fp8_block_cols, 32u);
  // Its own value goes first.
  config["text_config"]["torch_dtype"] = "float32";
  EXPECT_EQ(Model(config).dtype, Dtype::kF32);
}

TEST(FamilyOptions, PhiTakesTwo) { ExpectRefused(Golden("phi-3.5-moe"), "num_experts_per_tok", 3); }

TEST(FamilyOptions, GptOssNamesOfBothKinds) {
  json config = Golden("gpt-oss-20b");
  config.erase("num_experts_per_tok");
  config["swiglu_limit"] = 5.0;
  EXPECT_EQ(Routing(config).top_k, 4u);
  EXPECT_EQ(Model(config).layers[0].expert.swiglu_limit, 5.0f);
  EXPECT_EQ(Model(config).layers[0].expert.swiglu_alpha, 1.702f);
  config["swiglu_alpha"] = 1.3;
  EXPECT_EQ(Model(config).layers[0].expert.swiglu_alpha, 1.3f);
  config["num_experts_per_tok"] = 3;
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "num_experts_per_tok = 3",
              "experts_per_token = 4");
}

TEST(FamilyOptions, KimiK2IsADeepseekV3) {
  json config = Golden("deepseek-v3");
  config["model_type"] = "kimi_k2";
  config["n_routed_experts"] = 384;
  config["n_group"] = 1;
  config["topk_group"] = 1;
  config["routed_scaling_factor"] = 2.827;
  const RoutingOptions routing = Routing(config);
  EXPECT_EQ(RoutingJson(routing), RoutingJson(DeepseekV3(384, 1, 1, 2.827f)));
}

}  // namespace
}  // namespace expertmesh::checkpoint
