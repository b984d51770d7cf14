#include "common/checkpoint/synthetic.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "common/checkpoint/families.h"
#include "common/checkpoint/model_config.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/checkpoint/random_tensor.h"
#include "common/checkpoint/safetensors.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"

namespace expertmesh::checkpoint {

void PrintTo(const Family* family, std::ostream* out) { *out << family->name; }

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
  return options;
}

bool HasPlaceFor(const Family& family, SyntheticOption option) {
  const auto& options = family.synthetic_options;
  return std::find(options.begin(), options.end(), option) != options.end();
}

// With a dense layer, and more shared experts than usual, where the family has them.
SyntheticOptions WithEverything(const Family& family) {
  SyntheticOptions options = Small(std::string(family.name));
  options.dense_layers = HasPlaceFor(family, SyntheticOption::kDenseLayers) ? 1 : 0;
  options.dense_intermediate_size = HasPlaceFor(family, SyntheticOption::kDenseWidth) ? 80 : 0;
  options.n_group = HasPlaceFor(family, SyntheticOption::kGroups) ? 2 : 1;
  if (HasPlaceFor(family, SyntheticOption::kSharedExperts)) {
    options.shared_experts = 2;
  }
  if (HasPlaceFor(family, SyntheticOption::kTopK)) {
    options.top_k = 3;
  }
  return options;
}

std::vector<float> Floats(const SafetensorsReader& reader, const std::string& name) {
  const auto tensor = reader.Find(name);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  std::vector<float> values((*tensor)->bytes / BytesOf((*tensor)->dtype));
  ConvertElements((*tensor)->dtype, (*tensor)->data, Dtype::kF32, values.data(), values.size());
  return values;
}

double RootMeanSquare(const std::vector<float>& values) {
  double sum = 0.0;
  for (const float value : values) {
    sum += static_cast<double>(value) * value;
  }
  return std::sqrt(sum / static_cast<double>(values.size()));
}

class FamilyTest : public testing::TestWithParam<const Family*> {};

// What the family's reader says is there is there, in number and size, and opens.
TEST_P(FamilyTest, HoldsEveryTensorOfTheFamily) {
  TemporaryFolder folder;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
    SyntheticOptions options = WithEverything(*GetParam());
    options.dtype = dtype;
    const std::string directory = folder / std::string(NameOf(dtype));
    const absl::Status made = MakeSyntheticCheckpoint(directory, options);
    ASSERT_TRUE(made.ok()) << made;
    const auto reader = SafetensorsReader::OpenFolder(directory);
    ASSERT_TRUE(reader.ok()) << reader.status();
    const auto model = ReadModelDescription(directory);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->family, GetParam()->name);
    EXPECT_EQ(model->dtype, dtype);
    EXPECT_EQ(model->num_layers, 3u);
    uint64_t elements = 0;
    for (const auto& [name, tensor] : (*reader)->tensors()) {
      elements += tensor.bytes / BytesOf(tensor.dtype);
    }
    EXPECT_EQ(elements, model->parameters.total);
    const auto checkpoint = MoeCheckpoint::Open(directory);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_FALSE(std::filesystem::exists(directory + ".partial"));
  }
}

TEST_P(FamilyTest, TakesTheOptionsItHasAPlaceFor) {
  TemporaryFolder folder;
  const SyntheticOptions options = WithEverything(*GetParam());
  ASSERT_TRUE(MakeSyntheticCheckpoint(folder / "m", options).ok());
  const auto model = ReadModelDescription(folder / "m");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->d_model, 64u);
  for (const MoeLayerDescription& layer : model->layers) {
    EXPECT_EQ(layer.routing.num_experts, 8u);
    EXPECT_EQ(layer.routing.top_k, options.top_k.value_or(layer.routing.top_k));
    EXPECT_EQ(layer.routing.n_group, options.n_group);
    EXPECT_EQ(layer.expert.intermediate_size, 48u);
    if (options.shared_experts.has_value()) {
      EXPECT_EQ(layer.shared_intermediate_size, 96u);
    }
  }
  EXPECT_EQ(model->layers.front().layer, options.dense_layers);
  EXPECT_EQ(model->layers.size(), 3u - options.dense_layers);
}

TEST_P(FamilyTest, EveryOtherLayerHasExperts) {
  if (!HasPlaceFor(*GetParam(), SyntheticOption::kMoeEvery)) {
    GTEST_SKIP() << "experts in every layer";
  }
  TemporaryFolder folder;
  SyntheticOptions options = Small(std::string(GetParam()->name));
  options.num_layers = 8;
  options.moe_every = 2;
  ASSERT_TRUE(MakeSyntheticCheckpoint(folder / "m", options).ok());
  EXPECT_EQ((*MoeCheckpoint::Open(folder / "m"))->model().layers.size(), 4u);
}

TEST_P(FamilyTest, RefusesOptionsItHasNoPlaceFor) {
  TemporaryFolder folder;
  const struct {
    SyntheticOption option;
    std::function<void(SyntheticOptions*)> set;
    std::string name;
  } all[] = {
      {SyntheticOption::kTopK, [](auto* o) { o->top_k = 2; }, "top_k"},
      {SyntheticOption::kDenseLayers, [](auto* o) { o->dense_layers = 1; }, "dense_layers"},
      {SyntheticOption::kMoeEvery, [](auto* o) { o->moe_every = 2; }, "moe_every"},
      {SyntheticOption::kDenseWidth, [](auto* o) { o->dense_intermediate_size = 9; },
       "dense_intermediate_size"},
      {SyntheticOption::kSharedExperts, [](auto* o) { o->shared_experts = 1; }, "shared_experts"},
      {SyntheticOption::kGroups, [](auto* o) { o->n_group = 2; }, "n_group"},
  };
  for (const auto& [option, set, name] : all) {
    if (HasPlaceFor(*GetParam(), option)) {
      continue;
    }
    SyntheticOptions options = Small(std::string(GetParam()->name));
    set(&options);
    ExpectError(MakeSyntheticCheckpoint(folder / "m", options), StatusCode::kInvalidArgument, name,
                "no place", GetParam()->name);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

INSTANTIATE_TEST_SUITE_P(All, FamilyTest, testing::ValuesIn(Families().begin(), Families().end()),
                         [](const auto& info) { return std::string(info.param->name); });

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
    EXPECT_TRUE(SameBits(absl::MakeConstSpan(tensor.data, tensor.bytes),
                         absl::MakeConstSpan(same.data, same.bytes), 1))
        << name;
  }
  const std::string name = "model.layers.1.mlp.experts.0.up_proj.weight";
  EXPECT_FALSE(SameRows(Floats(**a, name), Floats(**c, name), 1));
  const std::string other = "model.layers.1.mlp.experts.1.up_proj.weight";
  EXPECT_FALSE(SameRows(Floats(**a, name), Floats(**a, other), 1));
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
  EXPECT_TRUE(SameRows(Floats(**reader, "model.norm.weight"), std::vector<float>(64, 1.0f), 64));
  const TensorView& bias = **(*reader)->Find(layer + "gate.e_score_correction_bias");
  EXPECT_EQ(bias.dtype, Dtype::kF32);
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
              "hidden_size is 0");
  ExpectError(make([](auto* o) { o->n_group = 3; }, "deepseek_v3"), StatusCode::kInvalidArgument,
              "n_group = 3");
  ExpectError(make([](auto* o) { o->moe_every = 0; }, "qwen3_moe"), StatusCode::kInvalidArgument,
              "moe_every = 0");
  ExpectError(make([](auto* o) { o->num_layers = 1; }, "nllb_moe"), StatusCode::kInvalidArgument,
              "num_layers = 1", "nllb_moe");
  ExpectError(make([](auto* o) { o->dtype = Dtype::kI8; }, "mixtral"), StatusCode::kInvalidArgument,
              "I8", "BF16");
  ExpectError(make([](auto*) {}, "llama"), StatusCode::kInvalidArgument, "'llama'", "mixtral");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(NormalSequence, PiecesFitTogether) {
  const NormalSequence sequence(5, "name");
  std::vector<float> whole(1003);
  sequence.Fill(0, 1003, 1.0f, Dtype::kF32, whole.data());
  std::vector<float> pieces(1003);
  sequence.Fill(0, 400, 1.0f, Dtype::kF32, pieces.data());
  sequence.Fill(400, 603, 1.0f, Dtype::kF32, pieces.data() + 400);
  EXPECT_EQ(whole, pieces);
}

TEST(NormalSequence, IsNormal) {
  std::vector<float> values(1 << 18);
  NormalSequence(1, "x").Fill(0, values.size(), 1.0f, Dtype::kF32, values.data());
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
  NormalSequence(1, "model.norm.weight").Fill(0, 4, 1.0f, Dtype::kF32, values);
  EXPECT_THAT(values, testing::ElementsAre(
                          testing::FloatEq(-0.0629405523f), testing::FloatEq(-0.443724443f),
                          testing::FloatEq(-1.56714549f), testing::FloatEq(-0.212273176f)));
}

}  // namespace
}  // namespace expertmesh::checkpoint
