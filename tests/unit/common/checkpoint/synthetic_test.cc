#include "common/checkpoint/synthetic.h"

#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "common/checkpoint/model_config.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/checkpoint/random_tensor.h"
#include "common/checkpoint/safetensors.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"

namespace expertmesh {
namespace {

using absl::StatusCode;

SyntheticOptions Small(const std::string& family) {
  SyntheticOptions options;
  options.family = family;
  options.d_model = 64;
  options.num_layers = 3;
  options.num_experts = 8;
  options.intermediate_size = 48;
  options.vocab_size = 100;
  options.dense_layers = family == "mixtral" ? 0 : 1;
  return options;
}

std::vector<float> Floats(const SafetensorsReader& reader, const std::string& name) {
  const auto tensor = reader.Find(name);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  std::vector<float> values((*tensor)->bytes / BytesOf((*tensor)->dtype));
  ConvertElements((*tensor)->dtype, (*tensor)->data, DType::kF32, values.data(), values.size());
  return values;
}

double RootMeanSquare(const std::vector<float>& values) {
  double sum = 0.0;
  for (const float value : values) {
    sum += static_cast<double>(value) * value;
  }
  return std::sqrt(sum / static_cast<double>(values.size()));
}

class FamilyTest : public testing::TestWithParam<std::string> {};

// What the family's reader says is there is there, in number and size, and opens.
TEST_P(FamilyTest, HoldsEveryTensorOfTheFamily) {
  TemporaryFolder folder;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    SyntheticOptions options = Small(GetParam());
    options.dtype = dtype;
    const std::string directory = folder / std::string(NameOf(dtype));
    const absl::Status made = MakeSyntheticCheckpoint(directory, options);
    ASSERT_TRUE(made.ok()) << made;
    const auto reader = SafetensorsReader::OpenFolder(directory);
    ASSERT_TRUE(reader.ok()) << reader.status();
    const auto model = ReadModelDescription(directory);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->family, GetParam());
    EXPECT_EQ(model->dtype, dtype);
    EXPECT_EQ(model->num_layers, 3u);
    uint64_t elements = 0;
    for (const auto& [name, tensor] : (*reader)->tensors()) {
      elements += tensor.bytes / BytesOf(tensor.dtype);
    }
    EXPECT_EQ(elements, model->parameters.total);
    for (const char* name :
         {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
          "model.layers.2.input_layernorm.weight", "model.layers.2.post_attention_layernorm.weight",
          "model.layers.0.self_attn.o_proj.weight"}) {
      EXPECT_TRUE((*reader)->Find(name).ok()) << name;
    }
    EXPECT_TRUE(MoeCheckpoint::Open(directory).ok());
    EXPECT_FALSE(std::filesystem::exists(directory + ".partial"));
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilyTest, testing::Values("mixtral", "qwen3_moe", "deepseek_v3"));

TEST(Synthetic, BytesDependOnSeedAndNameOnly) {
  TemporaryFolder folder;
  SyntheticOptions options = Small("qwen3_moe");
  ASSERT_TRUE(MakeSyntheticCheckpoint(folder / "a", options).ok());
  options.max_shard_bytes = 20'000;
  options.num_layers = 4;
  ASSERT_TRUE(MakeSyntheticCheckpoint(folder / "b", options).ok());
  options.seed = 2;
  ASSERT_TRUE(MakeSyntheticCheckpoint(folder / "c", options).ok());
  const auto a = SafetensorsReader::OpenFolder(folder / "a");
  const auto b = SafetensorsReader::OpenFolder(folder / "b");
  const auto c = SafetensorsReader::OpenFolder(folder / "c");
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  for (const auto& [name, tensor] : (*a)->tensors()) {
    const TensorView& same = **(*b)->Find(name);
    ASSERT_EQ(tensor.bytes, same.bytes);
    EXPECT_EQ(std::memcmp(tensor.data, same.data, tensor.bytes), 0) << name;
  }
  const std::string name = "model.layers.1.mlp.experts.0.up_proj.weight";
  EXPECT_NE(Floats(**a, name), Floats(**c, name));
  EXPECT_NE(Floats(**a, name), Floats(**a, "model.layers.1.mlp.experts.1.up_proj.weight"));
}

TEST(Synthetic, WeightsKeepActivationsInScale) {
  TemporaryFolder folder;
  ASSERT_TRUE(MakeSyntheticCheckpoint(folder / "m", Small("deepseek_v3")).ok());
  const auto reader = SafetensorsReader::OpenFolder(folder / "m");
  ASSERT_TRUE(reader.ok());
  const std::string layer = "model.layers.1.mlp.";
  EXPECT_NEAR(RootMeanSquare(Floats(**reader, layer + "experts.0.gate_proj.weight")),
              1 / std::sqrt(64.0), 0.01);
  EXPECT_NEAR(RootMeanSquare(Floats(**reader, layer + "experts.0.down_proj.weight")),
              1 / std::sqrt(48.0), 0.01);
  EXPECT_EQ(Floats(**reader, "model.norm.weight"), std::vector<float>(64, 1.0f));
  const TensorView& bias = **(*reader)->Find(layer + "gate.e_score_correction_bias");
  EXPECT_EQ(bias.dtype, DType::kF32);
  for (const float value : Floats(**reader, layer + "gate.e_score_correction_bias")) {
    EXPECT_NE(value, 0.0f);
    EXPECT_LT(std::abs(value), 0.25f);
  }
}

TEST(Synthetic, ReportsProgress) {
  TemporaryFolder folder;
  SyntheticOptions options = Small("mixtral");
  uint64_t last = 0;
  uint64_t total = 0;
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_GT(done, last);
    last = done;
    total = all;
  };
  ASSERT_TRUE(MakeSyntheticCheckpoint(folder / "m", options).ok());
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, ReadModelDescription(folder / "m")->parameters.total * 2);
}

TEST(Synthetic, KeepsWhatIsThere) {
  TemporaryFolder folder;
  WriteFile(folder / "mine", "x");
  ExpectError(MakeSyntheticCheckpoint(folder.path(), Small("mixtral")), StatusCode::kAlreadyExists,
              folder.path(), "not empty");
  EXPECT_EQ(ReadFile(folder / "mine"), "x");
  std::filesystem::create_directory(folder / "empty");
  EXPECT_TRUE(MakeSyntheticCheckpoint(folder / "empty/", Small("mixtral")).ok());
}

TEST(Synthetic, RefusesContradictorySizes) {
  TemporaryFolder folder;
  const auto make = [&](const std::function<void(SyntheticOptions*)>& change,
                        const std::string& family) {
    SyntheticOptions options = Small(family);
    change(&options);
    return MakeSyntheticCheckpoint(folder / "m", options);
  };
  ExpectError(make([](auto* o) { o->top_k = 9; }, "mixtral"), StatusCode::kInvalidArgument,
              "num_experts_per_tok = 9");
  ExpectError(make([](auto* o) { o->d_model = 0; }, "qwen3_moe"), StatusCode::kInvalidArgument,
              "hidden_size = 0");
  ExpectError(make([](auto* o) { o->n_group = 3; }, "deepseek_v3"), StatusCode::kInvalidArgument,
              "n_group = 3");
  ExpectError(make([](auto* o) { o->n_group = 2; }, "qwen3_moe"), StatusCode::kInvalidArgument,
              "n_group", "qwen3_moe");
  ExpectError(make([](auto* o) { o->dense_layers = 1; }, "mixtral"), StatusCode::kInvalidArgument,
              "dense_layers", "mixtral");
  ExpectError(make([](auto* o) { o->dtype = DType::kI8; }, "mixtral"), StatusCode::kInvalidArgument,
              "I8", "BF16");
  ExpectError(make([](auto*) {}, "llama"), StatusCode::kInvalidArgument, "'llama'", "mixtral");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(NormalSequence, PiecesFitTogether) {
  const NormalSequence sequence(5, "name");
  std::vector<float> whole(1003);
  sequence.Fill(0, 1003, 1.0f, DType::kF32, whole.data());
  std::vector<float> pieces(1003);
  sequence.Fill(0, 400, 1.0f, DType::kF32, pieces.data());
  sequence.Fill(400, 603, 1.0f, DType::kF32, pieces.data() + 400);
  EXPECT_EQ(whole, pieces);
}

TEST(NormalSequence, IsNormal) {
  std::vector<float> values(1 << 18);
  NormalSequence(1, "x").Fill(0, values.size(), 1.0f, DType::kF32, values.data());
  double mean = 0.0;
  double second = 0.0;
  double fourth = 0.0;
  for (const float value : values) {
    EXPECT_NE(value, 0.0f);
    mean += value;
    second += std::pow(value, 2);
    fourth += std::pow(value, 4);
  }
  const double count = static_cast<double>(values.size());
  EXPECT_NEAR(mean / count, 0.0, 0.01);
  EXPECT_NEAR(second / count, 1.0, 0.01);
  EXPECT_NEAR(fourth / count, 3.0, 0.1);
}

// Guards the generator itself: checkpoints made with one version must be made again by the next.
TEST(NormalSequence, NeverChanges) {
  float values[4];
  NormalSequence(1, "model.norm.weight").Fill(0, 4, 1.0f, DType::kF32, values);
  EXPECT_THAT(values, testing::ElementsAre(
                          testing::FloatEq(-0.0629405523f), testing::FloatEq(-0.443724443f),
                          testing::FloatEq(-1.56714549f), testing::FloatEq(-0.212273176f)));
}

}  // namespace
}  // namespace expertmesh
