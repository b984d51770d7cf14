#include "common/checkpoint/families.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "common/checkpoint/model_config.h"
#include "nlohmann/json.hpp"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;
using nlohmann::json;
using testing::HasSubstr;

std::string GoldenPath(const std::string& name) {
  return std::string(EXPERTMESH_SOURCE_DIR) + "/tests/golden/configs/" + name;
}

json Golden(const std::string& name) {
  return json::parse(ReadFile(GoldenPath(name) + "/config.json"));
}

absl::StatusOr<ModelLayout> Read(const json& config) {
  const auto reader = JsonReader::FromText(config.dump(), "config.json");
  return reader.ok() ? ReadModelLayout(*reader) : reader.status();
}

// `config` with `key` set to `value` is refused; the message names both.
void ExpectRefused(json config, const std::string& key, const json& value) {
  config[key] = value;
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "config.json", key);
}

std::vector<uint32_t> MoeLayers(const ModelDescription& model) {
  std::vector<uint32_t> layers;
  for (const MoeLayerDescription& layer : model.layers) {
    layers.push_back(layer.layer);
  }
  return layers;
}

TEST(ParameterCounts, OfOneExpert) {
  const auto model = ReadModelDescription(GoldenPath("mixtral-8x7b") + "/config.json");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->parameters.per_expert, 3u * 4096 * 14336);
  EXPECT_EQ(model->parameters.routed_experts, uint64_t{32 * 8 * 3} * 4096 * 14336);
}

TEST(ParameterCounts, TiedEmbeddingsCountOnce) {
  json config = Golden("qwen3-30b-a3b");
  config["tie_word_embeddings"] = true;
  const auto layout = Read(config);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->model.parameters.total, 30'532'122'624u - 151936u * 2048);
}

TEST(Families, Mixtral) {
  const auto layout = Read(Golden("mixtral-8x7b"));
  ASSERT_TRUE(layout.ok()) << layout.status();
  const ModelDescription& model = layout->model;
  EXPECT_EQ(model.family, "mixtral");
  EXPECT_EQ(model.d_model, 4096u);
  EXPECT_EQ(model.num_layers, 32u);
  EXPECT_EQ(model.dtype, Dtype::kBF16);
  ASSERT_EQ(model.layers.size(), 32u);
  const MoeLayerDescription& layer = model.layers[31];
  EXPECT_EQ(layer.layer, 31u);
  EXPECT_EQ(layer.routing.num_experts, 8u);
  EXPECT_EQ(layer.routing.top_k, 2u);
  EXPECT_EQ(layer.routing.logit_dtype, LogitDtype::kModel);
  EXPECT_EQ(layer.routing.score, ScoreFunction::kSoftmax);
  EXPECT_EQ(layer.routing.scope, ScoreScope::kAll);
  EXPECT_FALSE(layer.routing.select_bias);
  EXPECT_EQ(layer.routing.n_group, 1u);
  EXPECT_EQ(layer.routing.renormalise, Renormalise::kSum);
  EXPECT_EQ(layer.routing.renormalise_epsilon, 0.0f);
  EXPECT_EQ(layer.routing.scale, 1.0f);
  EXPECT_EQ(layer.routing.weight_dtype, WeightDtype::kModel);
  EXPECT_EQ(layer.routing.apply, ApplyWeight::kOutput);
  EXPECT_EQ(layer.expert.d_model, 4096u);
  EXPECT_EQ(layer.expert.intermediate_size, 14336u);
  EXPECT_EQ(layer.shared_intermediate_size, 0u);
}

TEST(Families, Qwen3Moe) {
  json config = Golden("qwen3-30b-a3b");
  auto layout = Read(config);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->model.family, "qwen3_moe");
  ASSERT_EQ(layout->model.layers.size(), 48u);
  const RoutingOptions& routing = layout->model.layers[0].routing;
  EXPECT_EQ(routing.num_experts, 128u);
  EXPECT_EQ(routing.top_k, 8u);
  EXPECT_EQ(routing.logit_dtype, LogitDtype::kModel);
  EXPECT_EQ(routing.renormalise, Renormalise::kSum);
  EXPECT_EQ(routing.weight_dtype, WeightDtype::kModel);
  EXPECT_EQ(layout->model.layers[0].expert.intermediate_size, 768u);

  config.erase("norm_topk_prob");
  layout = Read(config);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->model.layers[0].routing.renormalise, Renormalise::kNone);
}

TEST(Families, Qwen3MoeDenseLayers) {
  json config = Golden("qwen3-30b-a3b");
  config["num_hidden_layers"] = 7;
  config["decoder_sparse_step"] = 2;
  config["mlp_only_layers"] = {3};
  const auto layout = Read(config);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_THAT(MoeLayers(layout->model), testing::ElementsAre(1, 5));
}

TEST(Families, DeepseekV3) {
  const auto layout = Read(Golden("deepseek-v3"));
  ASSERT_TRUE(layout.ok()) << layout.status();
  const ModelDescription& model = layout->model;
  EXPECT_EQ(model.family, "deepseek_v3");
  EXPECT_EQ(model.num_layers, 61u);
  ASSERT_EQ(model.layers.size(), 58u);
  EXPECT_EQ(model.layers.front().layer, 3u);
  EXPECT_EQ(model.layers.back().layer, 60u);
  const MoeLayerDescription& layer = model.layers.front();
  EXPECT_EQ(layer.routing.logit_dtype, LogitDtype::kF32);
  EXPECT_EQ(layer.routing.score, ScoreFunction::kSigmoid);
  EXPECT_TRUE(layer.routing.select_bias);
  EXPECT_EQ(layer.routing.n_group, 8u);
  EXPECT_EQ(layer.routing.topk_group, 4u);
  EXPECT_EQ(layer.routing.group_score, GroupScore::kTopTwoSum);
  EXPECT_EQ(layer.routing.masked_choice, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(layer.routing.renormalise, Renormalise::kSum);
  EXPECT_EQ(layer.routing.renormalise_epsilon, 1e-20f);
  EXPECT_EQ(layer.routing.scale, 2.5f);
  EXPECT_EQ(layer.routing.weight_dtype, WeightDtype::kF32);
  EXPECT_EQ(layer.shared_intermediate_size, 2048u);
}

TEST(Families, DeepseekV3Variants) {
  json config = Golden("deepseek-v3");
  config["moe_layer_freq"] = 2;
  config["num_hidden_layers"] = 8;
  config["n_shared_experts"] = nullptr;
  config["q_lora_rank"] = nullptr;
  config["n_group"] = nullptr;
  config["topk_group"] = nullptr;
  config["norm_topk_prob"] = false;
  const auto layout = Read(config);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_THAT(MoeLayers(layout->model), testing::ElementsAre(4, 6));
  EXPECT_EQ(layout->model.layers[0].shared_intermediate_size, 0u);
  EXPECT_EQ(layout->model.layers[0].routing.n_group, 1u);
  EXPECT_EQ(layout->model.layers[0].routing.renormalise, Renormalise::kNone);
  bool plain_query = false;
  ForEachTensor(*layout, [&](const TensorDeclaration& tensor) {
    plain_query |= tensor.name == "model.layers.7.self_attn.q_proj.weight" &&
                   tensor.shape == std::vector<uint64_t>{128 * 192, 7168};
  });
  EXPECT_TRUE(plain_query);
}

TEST(Families, AreRecognisedByArchitectureToo) {
  json config = Golden("deepseek-v3");
  config["model_type"] = "somebodys_fine_tune";
  EXPECT_EQ(Read(config)->model.family, "deepseek_v3");
  config["model_type"] = "kimi_k2";
  config.erase("architectures");
  EXPECT_EQ(Read(config)->model.family, "deepseek_v3");
}

TEST(Families, AliasesAndNewerKeys) {
  json config = Golden("mixtral-8x7b");
  config.erase("num_local_experts");
  config["num_experts"] = 8;
  config.erase("num_experts_per_tok");
  config["moe_top_k"] = 2;
  config.erase("torch_dtype");
  config["dtype"] = "float16";
  config.erase("rope_theta");
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  const auto layout = Read(config);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->model.dtype, Dtype::kF16);
  EXPECT_EQ(layout->model.parameters.total, 46'702'792'704u);
}

TEST(Families, RefusesAliasesThatDisagree) {
  json config = Golden("mixtral-8x7b");
  config["num_experts"] = 16;
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "num_local_experts = 8",
              "num_experts = 16");
}

TEST(Families, ListsKnownFamilies) {
  ExpectError(Read({{"model_type", "llama"}}).status(), StatusCode::kInvalidArgument, "'llama'",
              "mixtral, deepseek_moe, deepseek_v2, deepseek_v3");
  ExpectError(Read(json::object()).status(), StatusCode::kInvalidArgument, "deepseek_v3");
  ExpectError(FindFamily("llama").status(), StatusCode::kInvalidArgument, "'llama'", "mixtral");
  EXPECT_EQ((*FindFamily("mixtral"))->name, "mixtral");
}

TEST(Families, RefusesContradictions) {
  const json mixtral = Golden("mixtral-8x7b");
  ExpectRefused(mixtral, "num_experts_per_tok", 9);
  ExpectRefused(mixtral, "num_attention_heads", 12);
  ExpectRefused(mixtral, "num_key_value_heads", 5);
  ExpectRefused(mixtral, "hidden_act", "gelu");
  ExpectRefused(mixtral, "torch_dtype", "int8");

  const json deepseek = Golden("deepseek-v3");
  ExpectRefused(deepseek, "n_group", 7);     // Does not divide 256.
  ExpectRefused(deepseek, "topk_group", 9);  // More than the 8 groups.
  ExpectRefused(deepseek, "n_group", 256);   // One expert in a group: no top two.
  ExpectRefused(deepseek, "first_k_dense_replace", 61 + 1'000'000'000);
  ExpectRefused(deepseek, "scoring_func", "softmax");
  ExpectRefused(deepseek, "topk_method", "greedy");
  ExpectRefused(deepseek, "n_shared_experts", 1'000'000);

  json few = deepseek;  // 2 groups of 4 experts are fewer than the 9 wanted.
  few["n_routed_experts"] = 32;
  few["topk_group"] = 2;
  ExpectRefused(few, "num_experts_per_tok", 9);

  json dense = deepseek;
  dense["first_k_dense_replace"] = 61;
  ExpectError(Read(dense).status(), StatusCode::kInvalidArgument, "none of the 61 layers");

  ExpectRefused(Golden("qwen3-30b-a3b"), "mlp_only_layers", {48});
}

TEST(Families, RefusesWrongNumbers) {
  const json mixtral = Golden("mixtral-8x7b");
  for (const char* key : {"hidden_size", "num_hidden_layers", "vocab_size", "num_local_experts",
                          "num_experts_per_tok", "intermediate_size", "num_attention_heads"}) {
    for (const json& value : {json(0), json(-1), json(1.5), json("8"), json(true), json::array(),
                              json(uint64_t{1} << 40)}) {
      ExpectRefused(mixtral, key, value);
    }
    json absent = mixtral;
    absent.erase(key);
    ExpectError(Read(absent).status(), StatusCode::kInvalidArgument, key);
  }
  const json deepseek = Golden("deepseek-v3");
  ExpectRefused(deepseek, "routed_scaling_factor", "2.5");
  ExpectRefused(deepseek, "routed_scaling_factor", 1e300);
  ExpectRefused(deepseek, "norm_topk_prob", 1);
  ExpectRefused(deepseek, "moe_layer_freq", 0);
  ExpectRefused(deepseek, "model_type", 3);
  ExpectRefused(deepseek, "architectures", "DeepseekV3ForCausalLM");
  ExpectRefused(deepseek, "architectures", {1});
  ExpectRefused(Golden("qwen3-30b-a3b"), "mlp_only_layers", {-1});
  ExpectRefused(Golden("qwen3-30b-a3b"), "mlp_only_layers", 1);
}

TEST(Families, RefusesMoreExpertsThanAnyModelHas) {
  json config = Golden("mixtral-8x7b");
  config["num_hidden_layers"] = 4096;
  config["num_local_experts"] = 65536;
  ExpectError(Read(config).status(), StatusCode::kInvalidArgument, "268435456 experts");
}

TEST(Families, DtypeMayBeAbsent) {
  json config = Golden("mixtral-8x7b");
  config.erase("torch_dtype");
  const auto layout = Read(config);
  ASSERT_TRUE(layout.ok());
  EXPECT_FALSE(layout->dtype_known);
  EXPECT_EQ(layout->model.dtype, Dtype::kF32);
}

TEST(ReadModelDescription, NamesTheFile) {
  TemporaryFolder folder;
  ExpectError(ReadModelDescription(folder.path()).status(), StatusCode::kNotFound,
              folder / "config.json");
  WriteFile(folder / "config.json", "{nonsense");
  ExpectError(ReadModelDescription(folder.path()).status(), StatusCode::kInvalidArgument,
              folder / "config.json", "not valid JSON");
  WriteFile(folder / "config.json", "[]");
  ExpectError(ReadModelDescription(folder / "config.json").status(), StatusCode::kInvalidArgument,
              "the content is []; supported: an object");
  WriteFile(folder / "config.json", R"({"model_type": "mixtral", "model_type": "qwen3_moe"})");
  ExpectError(ReadModelDescription(folder.path()).status(), StatusCode::kInvalidArgument,
              "'model_type'", "twice");
}

}  // namespace
}  // namespace expertmesh::checkpoint
