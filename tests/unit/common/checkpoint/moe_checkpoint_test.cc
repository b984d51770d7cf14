#include "common/checkpoint/moe_checkpoint.h"

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/checkpoint/families.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/checkpoint/synthetic.h"
#include "common/tensor/decode_matrix.h"
#include "nlohmann/json.hpp"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"
#include "tests/unit/common/checkpoint/made_checkpoint.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;

void ExpectSameBytes(const MatrixView& view, const SafetensorsReader& reader,
                     const std::string& name) {
  const auto tensor = reader.Find(name);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(view.dtype, (*tensor)->dtype);
  ASSERT_EQ(view.rows * view.cols * BytesOf(view.dtype), (*tensor)->bytes);
  EXPECT_EQ(view.row_stride, view.cols);
  EXPECT_TRUE(SameBits(absl::MakeConstSpan(view.data, (*tensor)->bytes),
                       absl::MakeConstSpan((*tensor)->data, (*tensor)->bytes),
                       view.cols * BytesOf(view.dtype)))
      << name;
}

TEST(MoeCheckpoint, FindsMixtralTensors) {
  TemporaryFolder folder;
  const auto checkpoint = Make(folder / "m", Small("mixtral"));
  ASSERT_NE(checkpoint, nullptr);
  const auto reader = SafetensorsReader::OpenFolder(folder / "m");
  ASSERT_TRUE(reader.ok());
  const auto gate = checkpoint->Gate(1);
  ASSERT_TRUE(gate.ok());
  EXPECT_EQ(gate->weight.rows, 4u);
  EXPECT_EQ(gate->weight.cols, 32u);
  EXPECT_TRUE(gate->select_bias.empty());
  ExpectSameBytes(gate->weight, **reader, "model.layers.1.block_sparse_moe.gate.weight");
  const auto expert = checkpoint->Expert(0, 3);
  ASSERT_TRUE(expert.ok());
  const std::string prefix = "model.layers.0.block_sparse_moe.experts.3.";
  ExpectSameBytes(expert->gate, **reader, prefix + "w1.weight");
  ExpectSameBytes(expert->up, **reader, prefix + "w3.weight");
  ExpectSameBytes(expert->down, **reader, prefix + "w2.weight");
  EXPECT_EQ(expert->down.rows, 32u);
  EXPECT_EQ(expert->down.cols, 16u);
}

TEST(MoeCheckpoint, FindsDeepseekTensors) {
  TemporaryFolder folder;
  SyntheticOptions options = Small("deepseek_v3");
  options.dense_layers = 1;
  options.shared_experts = 2;
  options.n_group = 2;
  const auto checkpoint = Make(folder / "m", options);
  ASSERT_NE(checkpoint, nullptr);
  const auto reader = SafetensorsReader::OpenFolder(folder / "m");
  ASSERT_TRUE(reader.ok());
  const auto gate = checkpoint->Gate(1);
  ASSERT_TRUE(gate.ok()) << gate.status();
  EXPECT_EQ(gate->select_bias.rows, 1u);
  EXPECT_EQ(gate->select_bias.cols, 4u);
  EXPECT_EQ(gate->select_bias.dtype, Dtype::kF32);
  ExpectSameBytes(gate->select_bias, **reader, "model.layers.1.mlp.gate.e_score_correction_bias");
  const auto shared = checkpoint->Shared(1);
  ASSERT_TRUE(shared.ok());
  EXPECT_EQ(shared->gate.rows, 32u);
  ExpectSameBytes(shared->down, **reader, "model.layers.1.mlp.shared_experts.down_proj.weight");
  ExpectSameBytes(checkpoint->Expert(1, 2)->up, **reader,
                  "model.layers.1.mlp.experts.2.up_proj.weight");
}

TEST(MoeCheckpoint, SaysWhatDoesNotExist) {
  TemporaryFolder folder;
  SyntheticOptions options = Small("qwen3_moe");
  options.dense_layers = 1;
  const auto checkpoint = Make(folder / "m", options);
  ASSERT_NE(checkpoint, nullptr);
  ExpectError(checkpoint->Gate(0).status(), StatusCode::kNotFound, "layer 0 is not a MoE layer");
  ExpectError(checkpoint->Expert(7, 0).status(), StatusCode::kNotFound, "layer 7");
  ExpectError(checkpoint->Expert(1, 4).status(), StatusCode::kNotFound, "expert 4", "has 4");
  ExpectError(checkpoint->Shared(1).status(), StatusCode::kNotFound, "no shared expert");
  ExpectError(MoeCheckpoint::Open(folder / "x").status(), StatusCode::kNotFound, "no such folder");
}

TEST(MoeCheckpoint, ReadsShardsLikeASingleFile) {
  TemporaryFolder folder;
  SyntheticOptions options = Small("qwen3_moe");
  const auto single = Make(folder / "single", options);
  options.max_shard_bytes = 8000;
  const auto sharded = Make(folder / "sharded", options);
  ASSERT_TRUE(single != nullptr && sharded != nullptr);
  EXPECT_FALSE(std::filesystem::exists(folder / "sharded/model.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(folder / "sharded/model.safetensors.index.json"));
  EXPECT_FALSE(std::filesystem::exists(folder / "single/model.safetensors.index.json"));
  EXPECT_EQ(single->fingerprint(), sharded->fingerprint());
  for (uint32_t expert = 0; expert < 4; ++expert) {
    const MatrixView a = single->Expert(1, expert)->down;
    const MatrixView b = sharded->Expert(1, expert)->down;
    const size_t row_bytes = a.cols * 2;
    EXPECT_TRUE(SameBits(absl::MakeConstSpan(a.data, a.rows * row_bytes),
                         absl::MakeConstSpan(b.data, b.rows * row_bytes), row_bytes));
  }
}

TEST(MoeCheckpoint, FingerprintTellsModelsApart) {
  TemporaryFolder folder;
  const SyntheticOptions options = Small("qwen3_moe");
  const auto first = Make(folder / "first", options);
  EXPECT_THAT(first->fingerprint(), testing::MatchesRegex("[0-9a-f]+"));
  EXPECT_EQ(first->fingerprint().size(), 64u);
  EXPECT_EQ(Make(folder / "same", options)->fingerprint(), first->fingerprint());

  SyntheticOptions other = options;
  other.seed = 2;
  EXPECT_NE(Make(folder / "seed", other)->fingerprint(), first->fingerprint());
  other = options;
  other.top_k = 3;  // Same tensors, another configuration.
  EXPECT_NE(Make(folder / "top_k", other)->fingerprint(), first->fingerprint());
  other = options;
  other.vocab_size = 65;  // Same MoE layers, other tensors.
  EXPECT_NE(Make(folder / "vocabulary", other)->fingerprint(), first->fingerprint());
}

TEST(MoeCheckpoint, FingerprintReadsNoExpertBytes) {
  TemporaryFolder folder;
  const auto before = Make(folder / "m", Small("mixtral"));
  Rewrite(folder / "m", [](OwnedTensors* tensors) {
    tensors->at("model.layers.0.block_sparse_moe.experts.0.w1.weight").bytes[0] ^= 1;
  });
  EXPECT_EQ((*MoeCheckpoint::Open(folder / "m"))->fingerprint(), before->fingerprint());
  Rewrite(folder / "m", [](OwnedTensors* tensors) {
    tensors->at("model.layers.1.block_sparse_moe.gate.weight").bytes[0] ^= 1;
  });
  EXPECT_NE((*MoeCheckpoint::Open(folder / "m"))->fingerprint(), before->fingerprint());
}

TEST(MoeCheckpoint, FingerprintCoversNamesAndTypes) {
  TemporaryFolder folder;
  const auto before = Make(folder / "m", Small("mixtral"));
  Rewrite(folder / "m",
          [](OwnedTensors* tensors) { tensors->at("lm_head.weight").dtype = Dtype::kF16; });
  const std::string retyped = (*MoeCheckpoint::Open(folder / "m"))->fingerprint();
  EXPECT_NE(retyped, before->fingerprint());
  Rewrite(folder / "m", [](OwnedTensors* tensors) {
    auto node = tensors->extract("lm_head.weight");
    node.key() = "lm_head.weight_";
    tensors->insert(std::move(node));
  });
  EXPECT_NE((*MoeCheckpoint::Open(folder / "m"))->fingerprint(), retyped);
}

TEST(MoeCheckpoint, TakesTheDtypeFromTensorsWhenConfigIsSilent) {
  TemporaryFolder folder;
  SyntheticOptions options = Small("mixtral");
  options.dtype = Dtype::kF16;
  Make(folder / "m", options);
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "m/config.json"));
  config.erase("torch_dtype");
  WriteFile(folder / "m/config.json", config.dump());
  EXPECT_EQ((*MoeCheckpoint::Open(folder / "m"))->model().dtype, Dtype::kF16);
}

void ChangeConfig(const std::string& directory,
                  const std::function<void(nlohmann::json*)>& change) {
  nlohmann::json config = nlohmann::json::parse(ReadFile(directory + "/config.json"));
  change(&config);
  WriteFile(directory + "/config.json", config.dump());
}

void Widen(OwnedTensor* tensor) {
  const std::vector<float> values = tensor->Floats();
  tensor->dtype = Dtype::kF32;
  tensor->bytes.assign(reinterpret_cast<const char*>(values.data()), 4 * values.size());
}

bool IsGate(const std::string& name) {
  return name.ends_with("gate.weight") || name.find("router") != std::string::npos;
}

// As MiniMax-M2 and most that DeepSeek-V3 is the model of are released.
TEST(MoeCheckpoint, GatesInFloat32DoNotMakeTheModelFloat32) {
  for (const Family* family : Families()) {
    TemporaryFolder folder;
    ASSERT_NE(Make(folder / "m", Small(std::string(family->name))), nullptr);
    size_t gates = 0;
    Rewrite(folder / "m", [&](OwnedTensors* tensors) {
      for (auto& [name, tensor] : *tensors) {
        if (IsGate(name)) {
          Widen(&tensor);
          ++gates;
        }
      }
    });
    EXPECT_GE(gates, 2u) << family->name;
    ChangeConfig(folder / "m", [](nlohmann::json* config) { config->erase("torch_dtype"); });
    const auto opened = MoeCheckpoint::Open(folder / "m");
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ((*opened)->model().dtype, Dtype::kBF16) << family->name;
    EXPECT_EQ((*opened)->Gate((*opened)->model().layers[0].layer)->weight.dtype, Dtype::kF32);
  }
}

TEST(MoeCheckpoint, EmbeddingsThenNormsThenConfigThenExpertsSayTheDtype) {
  TemporaryFolder folder;
  ASSERT_NE(Make(folder / "m", Small("mixtral")), nullptr);  // All BF16.
  const auto dtype = [&] { return (*MoeCheckpoint::Open(folder / "m"))->model().dtype; };
  const auto drop = [&](const std::string& part) {
    Rewrite(folder / "m", [&](OwnedTensors* tensors) {
      std::erase_if(*tensors,
                    [&](const auto& entry) { return entry.first.find(part) != std::string::npos; });
    });
  };
  Rewrite(folder / "m", [](OwnedTensors* tensors) {
    for (auto& [name, tensor] : *tensors) {
      if (IsGate(name) || name.find("norm") != std::string::npos) {
        Widen(&tensor);
      }
    }
  });
  ChangeConfig(folder / "m", [](nlohmann::json* config) { (*config)["torch_dtype"] = "float16"; });
  EXPECT_EQ(dtype(), Dtype::kBF16);
  drop("embed_tokens");
  EXPECT_EQ(dtype(), Dtype::kF32);
  drop("norm");
  EXPECT_EQ(dtype(), Dtype::kF16);
  ChangeConfig(folder / "m", [](nlohmann::json* config) { config->erase("torch_dtype"); });
  EXPECT_EQ(dtype(), Dtype::kBF16);
}

TEST(MoeCheckpoint, SaysSoWhenConfigNamesAnotherDtype) {
  TemporaryFolder folder;
  EXPECT_TRUE(Make(folder / "m", Small("mixtral"))->warnings().empty());
  ChangeConfig(folder / "m", [](nlohmann::json* config) { (*config)["torch_dtype"] = "float32"; });
  const auto opened = MoeCheckpoint::Open(folder / "m");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->model().dtype, Dtype::kBF16);
  ASSERT_EQ((*opened)->warnings().size(), 1u);
  for (const char* part : {"config.json", "torch_dtype", "F32", "BF16", "--compute-dtype"}) {
    EXPECT_THAT((*opened)->warnings()[0], testing::HasSubstr(part));
  }
}

// What config.json switches off must not be there.
struct Ignored {
  const char* family;
  const char* key;
  nlohmann::json value;
  // Parts of the name of the tensor and of the message.
  const char* tensor;
  const char* why;
};

TEST(MoeCheckpoint, RefusesWeightsThatConfigLeavesOut) {
  const Ignored cases[] = {
      {"deepseek_v3", "n_shared_experts", 0, "shared_experts", "n_shared_experts is 0"},
      {"deepseek_v3", "n_shared_experts", nullptr, "shared_experts", "n_shared_experts is 0"},
      {"deepseek_v2", "n_shared_experts", 0, "shared_experts", "n_shared_experts is 0"},
      {"deepseek_moe", "n_shared_experts", 0, "shared_experts", "n_shared_experts is 0"},
      {"glm4_moe", "n_shared_experts", 0, "shared_experts", "n_shared_experts is 0"},
      {"ernie4_5_moe", "moe_num_shared_experts", 0, "shared_experts", "moe_num_shared_experts"},
      {"granitemoeshared", "shared_intermediate_size", 0, "shared_mlp", "shared_intermediate_size"},
      {"lfm2_moe", "use_expert_bias", false, "expert_bias", "use_expert_bias = false"},
      {"minimax_m2", "use_routing_bias", false, "e_score_correction_bias", "use_routing_bias"},
      {"mixtral", "num_local_experts", 3, "experts.3.w3.weight", "3 experts"},
      {"qwen3_moe", "num_experts", 3, "experts.3.up_proj.weight", "3 experts"},
  };
  for (const Ignored& one : cases) {
    TemporaryFolder folder;
    ASSERT_NE(Make(folder / "m", Small(one.family)), nullptr);
    const bool experts = std::string(one.why) == "3 experts";
    if (experts) {  // Or the gate has the wrong shape.
      Rewrite(folder / "m", [&](OwnedTensors* tensors) {
        for (auto& [name, tensor] : *tensors) {
          if (IsGate(name)) {
            tensor.shape[0] = 3;
            tensor.bytes.resize(tensor.elements() * BytesOf(tensor.dtype));
          }
        }
      });
    }
    ChangeConfig(folder / "m", [&](nlohmann::json* config) { (*config)[one.key] = one.value; });
    ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kInvalidArgument,
                "model.safetensors", one.tensor, "would be ignored", one.why, "config.json");
  }
}

class BadTensorTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(Make(folder_ / "m", Small("qwen3_moe")), nullptr); }

  absl::Status OpenAfter(const std::function<void(OwnedTensor*)>& change) {
    Rewrite(folder_ / "m", [&](auto* tensors) { change(&tensors->at(kName)); });
    return MoeCheckpoint::Open(folder_ / "m").status();
  }

  const std::string kName = "model.layers.1.mlp.experts.2.up_proj.weight";
  TemporaryFolder folder_;
};

TEST_F(BadTensorTest, Missing) {
  Rewrite(folder_ / "m", [&](auto* tensors) { tensors->erase(kName); });
  ExpectError(MoeCheckpoint::Open(folder_ / "m").status(), StatusCode::kNotFound, folder_ / "m",
              kName);
}

TEST_F(BadTensorTest, WrongShape) {
  ExpectError(OpenAfter([](OwnedTensor* tensor) {
                tensor->shape = {32, 16};
              }),
              StatusCode::kInvalidArgument, "model.safetensors", kName, "[32, 16]", "[16, 32]");
  ExpectError(OpenAfter([](OwnedTensor* tensor) { tensor->shape = {512}; }),
              StatusCode::kInvalidArgument, kName, "[512]");
}

TEST_F(BadTensorTest, TypeThatCannotBeUsed) {
  ExpectError(OpenAfter([](OwnedTensor* tensor) {
                tensor->dtype = Dtype::kF8E5M2;
                tensor->bytes.resize(512);
              }),
              StatusCode::kInvalidArgument, "model.safetensors", kName, "F8_E5M2",
              "F32, F16 and BF16");
}

// What was given before is read without harm, and told to be wrong.
TEST_F(BadTensorTest, FileTruncatedWhileOpen) {
  const auto checkpoint = MoeCheckpoint::Open(folder_ / "m");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ExpertWeights expert = *(*checkpoint)->Expert(1, 2);
  const GateWeights gate = *(*checkpoint)->Gate(1);
  EXPECT_TRUE((*checkpoint)->ConfirmRead(expert).ok());
  EXPECT_TRUE((*checkpoint)->ConfirmRead(gate).ok());
  std::filesystem::resize_file(folder_ / "m/model.safetensors", 0);
  EXPECT_EQ(DecodeMatrix(expert.up), std::vector<float>(16 * 32, 0.0f));
  ExpectError((*checkpoint)->ConfirmRead(expert), StatusCode::kDataLoss, "model.safetensors",
              "has 0 bytes");
  EXPECT_FALSE((*checkpoint)->ConfirmRead(gate).ok());
}

TEST_F(BadTensorTest, TruncatedFile) {
  const std::string path = folder_ / "m/model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  ExpectError(MoeCheckpoint::Open(folder_ / "m").status(), StatusCode::kDataLoss,
              "model.safetensors", "truncated");
}

}  // namespace
}  // namespace expertmesh::checkpoint
