// FP8 with blocks of scales and MXFP4, decoded by the formats' own definitions.

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "common/tensor/decode_matrix.h"
#include "nlohmann/json.hpp"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"
#include "tests/unit/common/checkpoint/made_checkpoint.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;

// 160 and 136 leave partial blocks of 128 at both edges.
SyntheticOptions Fp8(const std::string& family = "deepseek_v3") {
  SyntheticOptions options = Small(family);
  options.d_model = 160;
  options.intermediate_size = 136;
  options.quantise = Quantisation::kFp8;
  return options;
}

// OCP E4M3: bias 7, subnormal steps of 2^-9, no infinity.
double E4M3(uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const int mantissa = bits & 7;
  const double magnitude = exponent == 0 ? mantissa * std::pow(2.0, -9)
                                         : (1 + mantissa / 8.0) * std::pow(2.0, exponent - 7);
  return bits & 128 ? -magnitude : magnitude;
}

double E2M1(uint8_t nibble) {
  const double values[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return nibble & 8 ? -values[nibble & 7] : values[nibble & 7];
}

using ScaleAt = std::function<double(const OwnedTensor& scales, uint64_t index)>;

double F32Scale(const OwnedTensor& scales, uint64_t index) {
  float scale;
  std::memcpy(&scale, scales.bytes.data() + 4 * index, 4);
  return scale;
}

double ExponentScale(const OwnedTensor& scales, uint64_t index) {
  return std::pow(2.0, static_cast<uint8_t>(scales.bytes[index]) - 127);
}

void ExpectFp8(const MatrixView& matrix, const OwnedTensors& tensors, const std::string& name,
               const ScaleAt& scale) {
  const OwnedTensor& weight = tensors.at(name);
  const OwnedTensor& scales = tensors.at(name + "_scale_inv");
  ASSERT_EQ(weight.dtype, Dtype::kF8E4M3);
  const uint64_t columns = weight.shape[1];
  const std::vector<float> values = DecodeMatrix(matrix);
  ASSERT_EQ(values.size(), weight.elements());
  std::vector<double> expected;
  std::vector<float> rounded;
  for (uint64_t i = 0; i < values.size(); ++i) {
    const uint64_t block = i / columns / 128 * scales.shape[1] + i % columns / 128;
    expected.push_back(E4M3(static_cast<uint8_t>(weight.bytes[i])) * scale(scales, block));
    rounded.push_back(FloatFromBF16(BF16FromFloat(values[i])));
  }
  ASSERT_TRUE(SameRows(values, expected, columns)) << name;
  // Exact in BF16, too.
  ASSERT_TRUE(SameRows(rounded, values, columns)) << name;
}

const std::string kExpert = "model.layers.1.mlp.experts.2.";

TEST(Fp8Checkpoint, DecodesWithScalesOfItsBlocks) {
  TemporaryFolder folder;
  const auto checkpoint = Make(folder / "m", Fp8());
  ASSERT_NE(checkpoint, nullptr);
  const OwnedTensors tensors = Tensors(folder / "m");
  const ExpertWeights expert = *checkpoint->Expert(1, 2);
  ExpectFp8(expert.gate, tensors, kExpert + "gate_proj.weight", F32Scale);
  ExpectFp8(expert.up, tensors, kExpert + "up_proj.weight", F32Scale);
  ExpectFp8(expert.down, tensors, kExpert + "down_proj.weight", F32Scale);
  ExpectFp8(checkpoint->Shared(1)->down, tensors,
            "model.layers.1.mlp.shared_experts.down_proj.weight", F32Scale);
  // Values, and 2 x 2 scales for each of three matrices.
  EXPECT_EQ(checkpoint->ExpertBytes(1, 2), 3 * (160 * 136 + 4 * 4));
  // Scales differ, and the gate and its bias are not quantised.
  const OwnedTensor& scales = tensors.at(kExpert + "gate_proj.weight_scale_inv");
  EXPECT_EQ(scales.shape, (std::vector<uint64_t>{2, 2}));
  EXPECT_NE(F32Scale(scales, 0), F32Scale(scales, 3));
  EXPECT_EQ(checkpoint->Gate(1)->weight.dtype, Dtype::kBF16);
  EXPECT_EQ(checkpoint->Gate(1)->select_bias.dtype, Dtype::kF32);
}

TEST(Fp8Checkpoint, KeepsActivationsInScale) {
  TemporaryFolder folder;
  const auto checkpoint = Make(folder / "m", Fp8());
  double sum = 0.0;
  const std::vector<float> values = DecodeMatrix(checkpoint->Expert(1, 0)->gate);
  for (const float value : values) {
    sum += static_cast<double>(value) * value;
  }
  const double deviation = std::sqrt(sum / static_cast<double>(values.size()));
  EXPECT_GT(deviation * std::sqrt(160.0), 0.5);
  EXPECT_LT(deviation * std::sqrt(160.0), 2.0);
}

// Newer checkpoints have bytes that are exponents, under either of two types.
TEST(Fp8Checkpoint, DecodesExponentsAsScales) {
  for (const Dtype dtype : {Dtype::kU8, Dtype::kF8E8M0}) {
    TemporaryFolder folder;
    ASSERT_NE(Make(folder / "m", Fp8()), nullptr);
    Rewrite(folder / "m", [&](OwnedTensors* tensors) {
      uint8_t exponent = 110;
      for (auto& [name, tensor] : *tensors) {
        if (name.ends_with("_scale_inv")) {
          tensor.dtype = dtype;
          tensor.bytes.clear();
          for (uint64_t i = 0; i < tensor.elements(); ++i) {
            tensor.bytes.push_back(
                static_cast<char>(exponent = exponent > 130 ? 110 : exponent + 1));
          }
        }
      }
    });
    const auto checkpoint = MoeCheckpoint::Open(folder / "m");
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ExpectFp8((*checkpoint)->Expert(1, 2)->down, Tensors(folder / "m"),
              kExpert + "down_proj.weight", ExponentScale);
  }
}

// Qwen's own FP8 files have scales in BF16, some in F16.
TEST(Fp8Checkpoint, DecodesScalesOfSixteenBits) {
  for (const std::string family : {"qwen3_moe", "deepseek_v3"}) {
    for (const Dtype dtype : {Dtype::kBF16, Dtype::kF16}) {
      TemporaryFolder folder;
      ASSERT_NE(Make(folder / "m", Fp8(family)), nullptr);
      Rewrite(folder / "m", [&](OwnedTensors* tensors) {
        float scale = 0.0071f;
        for (auto& [name, tensor] : *tensors) {
          if (name.ends_with("_scale_inv")) {
            tensor.dtype = dtype;
            tensor.bytes.assign(2 * tensor.elements(), 0);
            for (uint64_t i = 0; i < tensor.elements(); ++i, scale *= 1.01f) {
              ConvertElements(Dtype::kF32, &scale, dtype, tensor.bytes.data() + 2 * i, 1);
            }
          }
        }
      });
      const auto checkpoint = MoeCheckpoint::Open(folder / "m");
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      const OwnedTensors tensors = Tensors(folder / "m");
      const std::string name = kExpert + "down_proj.weight";
      const OwnedTensor& weight = tensors.at(name);
      const std::vector<float> scales = tensors.at(name + "_scale_inv").Floats();
      const std::vector<float> values = DecodeMatrix((*checkpoint)->Expert(1, 2)->down);
      ASSERT_EQ(values.size(), weight.elements());
      for (uint64_t i = 0; i < values.size(); ++i) {
        const float scale = scales[i / 136 / 128 * 2 + i % 136 / 128];
        ASSERT_EQ(values[i],
                  static_cast<float>(E4M3(static_cast<uint8_t>(weight.bytes[i]))) * scale);
      }
    }
  }
}

TEST(Fp8Checkpoint, BlockSizeIsThatOfTheConfig) {
  TemporaryFolder folder;
  ASSERT_NE(Make(folder / "m", Fp8()), nullptr);
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "m/config.json"));
  config["quantization_config"]["weight_block_size"] = {64, 160};
  WriteFile(folder / "m/config.json", config.dump());
  ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kInvalidArgument,
              "weight_scale_inv", "[2, 2]", "[3, 1]");
  for (const nlohmann::json& block :
       {nlohmann::json{128}, nlohmann::json{0, 128}, nlohmann::json{"a", "b"}, nlohmann::json(1)}) {
    config["quantization_config"]["weight_block_size"] = block;
    WriteFile(folder / "m/config.json", config.dump());
    ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kInvalidArgument,
                "config.json", "quantization_config", "weight_block_size");
  }
  config["quantization_config"] = {{"quant_method", "gptq"}};
  WriteFile(folder / "m/config.json", config.dump());
  ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kInvalidArgument,
              "config.json", "'gptq'", "fp8 and mxfp4");
}

class BadFp8Test : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(Make(folder_ / "m", Fp8()), nullptr); }

  absl::Status OpenAfter(const std::function<void(OwnedTensor*)>& change) {
    Rewrite(folder_ / "m", [&](auto* tensors) { change(&tensors->at(kScales)); });
    return MoeCheckpoint::Open(folder_ / "m").status();
  }

  const std::string kScales = kExpert + "up_proj.weight_scale_inv";
  TemporaryFolder folder_;
};

TEST_F(BadFp8Test, ScalesAreMissing) {
  Rewrite(folder_ / "m", [&](auto* tensors) { tensors->erase(kScales); });
  ExpectError(MoeCheckpoint::Open(folder_ / "m").status(), StatusCode::kNotFound,
              "model.safetensors", "'" + kExpert + "up_proj.weight'", "F8_E4M3", kScales);
}

TEST_F(BadFp8Test, ScalesAreTruncated) {
  ExpectError(OpenAfter([](OwnedTensor* tensor) {
                tensor->shape = {1, 2};
                tensor->bytes.resize(8);
              }),
              StatusCode::kInvalidArgument, "model.safetensors", kScales, "[1, 2]", "[2, 2]");
}

TEST_F(BadFp8Test, ScalesHaveAnotherType) {
  ExpectError(OpenAfter([](OwnedTensor* tensor) {
                tensor->dtype = Dtype::kI8;
                tensor->bytes.resize(4);
              }),
              StatusCode::kInvalidArgument, "model.safetensors", kScales, "I8", "F32, BF16 or F16");
}

TEST_F(BadFp8Test, GateIsNeverQuantised) {
  Rewrite(folder_ / "m", [&](auto* tensors) {
    OwnedTensor& gate = tensors->at("model.layers.1.mlp.gate.weight");
    gate.dtype = Dtype::kF8E4M3;
    gate.bytes.resize(gate.elements());
  });
  ExpectError(MoeCheckpoint::Open(folder_ / "m").status(), StatusCode::kInvalidArgument,
              "model.safetensors", "mlp.gate.weight", "F8_E4M3");
}

TEST(Fp8Checkpoint, NeedsMatricesThatBeginWithABlock) {
  TemporaryFolder folder;
  ASSERT_NE(Make(folder / "m", Small("llama4")), nullptr);
  Rewrite(folder / "m", [&](OwnedTensors* tensors) {
    OwnedTensor& tensor = tensors->at("model.layers.0.feed_forward.experts.gate_up_proj");
    tensor.dtype = Dtype::kF8E4M3;
    tensor.bytes.resize(tensor.elements());
  });
  ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kInvalidArgument,
              "model.safetensors", "gate_up_proj", "F8_E4M3", "BF16");
}

// Halves of a fused tensor, where each begins with a block of its own.
TEST(Fp8Checkpoint, DecodesFusedHalves) {
  TemporaryFolder folder;
  SyntheticOptions options = Fp8("qwen3_moe");
  options.intermediate_size = 256;
  options.num_layers = 1;
  const auto split = Make(folder / "split", options);
  ASSERT_NE(Make(folder / "fused", options), nullptr);
  Rewrite(folder / "fused", [&](OwnedTensors* tensors) {
    const std::string block = "model.layers.0.mlp.experts.";
    OwnedTensor gate_up = {Dtype::kF8E4M3, {4, 512, 160}, ""};
    OwnedTensor gate_up_scales = {Dtype::kF32, {4, 4, 2}, ""};
    OwnedTensor down = {Dtype::kF8E4M3, {4, 160, 256}, ""};
    OwnedTensor down_scales = {Dtype::kF32, {4, 2, 2}, ""};
    for (int e = 0; e < 4; ++e) {
      const auto take = [&](const std::string& name, OwnedTensor* weight, OwnedTensor* scales) {
        const std::string full = block + std::to_string(e) + "." + name + ".weight";
        weight->bytes += tensors->extract(full).mapped().bytes;
        scales->bytes += tensors->extract(full + "_scale_inv").mapped().bytes;
      };
      take("gate_proj", &gate_up, &gate_up_scales);
      take("up_proj", &gate_up, &gate_up_scales);
      take("down_proj", &down, &down_scales);
    }
    (*tensors)[block + "gate_up_proj"] = gate_up;
    (*tensors)[block + "gate_up_proj_scale_inv"] = gate_up_scales;
    (*tensors)[block + "down_proj"] = down;
    (*tensors)[block + "down_proj_scale_inv"] = down_scales;
  });
  const auto fused = MoeCheckpoint::Open(folder / "fused");
  ASSERT_TRUE(fused.ok()) << fused.status();
  for (uint32_t e = 0; e < 4; ++e) {
    EXPECT_EQ(DecodeMatrix(split->Expert(0, e)->gate), DecodeMatrix((*fused)->Expert(0, e)->gate));
    EXPECT_EQ(DecodeMatrix(split->Expert(0, e)->up), DecodeMatrix((*fused)->Expert(0, e)->up));
    EXPECT_EQ(DecodeMatrix(split->Expert(0, e)->down), DecodeMatrix((*fused)->Expert(0, e)->down));
  }
}

SyntheticOptions Mxfp4() {
  SyntheticOptions options = Small("gpt_oss");
  options.d_model = 64;
  options.intermediate_size = 96;
  options.quantise = Quantisation::kMxfp4;
  return options;
}

// Row `row` of expert `expert` by the packed tensors.
std::vector<float> Mxfp4Row(const OwnedTensors& tensors, const std::string& name, uint64_t expert,
                            uint64_t row) {
  const OwnedTensor& blocks = tensors.at(name + "_blocks");
  const OwnedTensor& scales = tensors.at(name + "_scales");
  const uint64_t per_row = blocks.shape[2];
  EXPECT_EQ(blocks.shape[3], 16u);
  std::vector<float> values;
  for (uint64_t block = 0; block < per_row; ++block) {
    const uint64_t index = (expert * blocks.shape[1] + row) * per_row + block;
    const double scale = std::pow(2.0, static_cast<uint8_t>(scales.bytes[index]) - 127);
    for (uint64_t byte = 0; byte < 16; ++byte) {
      const uint8_t pair = static_cast<uint8_t>(blocks.bytes[16 * index + byte]);
      values.push_back(static_cast<float>(E2M1(pair & 15) * scale));
      values.push_back(static_cast<float>(E2M1(pair >> 4) * scale));
    }
  }
  return values;
}

std::vector<float> RowOf(const MatrixView& matrix, size_t row) {
  std::vector<float> values(matrix.cols);
  DecodeRow(matrix, row, 0, matrix.cols, values.data());
  return values;
}

TEST(Mxfp4Checkpoint, DecodesInterleavedRows) {
  TemporaryFolder folder;
  const auto checkpoint = Make(folder / "m", Mxfp4());
  ASSERT_NE(checkpoint, nullptr);
  const OwnedTensors tensors = Tensors(folder / "m");
  const std::string block = "model.layers.1.mlp.experts.";
  const ExpertWeights expert = *checkpoint->Expert(1, 3);
  ASSERT_EQ(expert.gate.rows, 96u);
  ASSERT_EQ(expert.gate.cols, 64u);
  for (size_t row = 0; row < 96; ++row) {
    const std::string name = block + "gate_up_proj";
    ASSERT_TRUE(SameRows(RowOf(expert.gate, row), Mxfp4Row(tensors, name, 3, 2 * row), 64)) << row;
    ASSERT_TRUE(SameRows(RowOf(expert.up, row), Mxfp4Row(tensors, name, 3, 2 * row + 1), 64))
        << row;
  }
  for (size_t row = 0; row < 64; ++row) {
    const auto expected = Mxfp4Row(tensors, block + "down_proj", 3, row);
    ASSERT_TRUE(SameRows(RowOf(expert.down, row), expected, 96)) << row;
  }
  EXPECT_FALSE(expert.up_bias.empty());
  EXPECT_EQ(checkpoint->ExpertBytes(1, 3), 3 * (64 * 96 / 2 + 64 * 96 / 32) + 2 * (2 * 96 + 64));
}

TEST(Mxfp4Checkpoint, NamesWhatIsWrong) {
  TemporaryFolder folder;
  ASSERT_NE(Make(folder / "m", Mxfp4()), nullptr);
  const OwnedTensors tensors = Tensors(folder / "m");
  const std::string name = "model.layers.1.mlp.experts.down_proj";
  const auto open = [&](const std::function<void(OwnedTensors*)>& change) {
    Rewrite(folder / "m", [&](OwnedTensors* all) {
      *all = tensors;
      change(all);
    });
    return MoeCheckpoint::Open(folder / "m").status();
  };
  for (const std::string part : {"_blocks", "_scales"}) {
    ExpectError(open([&](OwnedTensors* all) { all->erase(name + part); }), StatusCode::kNotFound,
                name + part);
    ExpectError(open([&](OwnedTensors* all) { all->at(name + part).dtype = Dtype::kI8; }),
                StatusCode::kInvalidArgument, "model.safetensors", name + part, "I8", "U8");
    ExpectError(open([&](OwnedTensors* all) {
                  OwnedTensor& tensor = all->at(name + part);
                  tensor.shape[0] = 3;
                  tensor.bytes.resize(tensor.elements());
                }),
                StatusCode::kInvalidArgument, "model.safetensors", name + part, "[3, ", "[4, ");
  }
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "m/config.json"));
  config["hidden_size"] = 48;
  config["num_attention_heads"] = 3;
  WriteFile(folder / "m/config.json", config.dump());
  const absl::Status narrow = open([](OwnedTensors* all) {
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
      OwnedTensor& gate = all->at(layer + "mlp.router.weight");
      gate.shape = {4, 48};
      gate.bytes.resize(4 * 48 * 2);
    }
  });
  ExpectError(narrow, StatusCode::kInvalidArgument, "48 inputs", "32");
}

TEST(Synthetic, RefusesQuantisationWithoutAPlace) {
  TemporaryFolder folder;
  SyntheticOptions options = Mxfp4();
  options.intermediate_size = 40;
  ExpectError(MakeSyntheticCheckpoint(folder / "m", options), StatusCode::kInvalidArgument,
              "intermediate_size = 40", "32");
  options = Small("mixtral");
  options.quantise = Quantisation::kMxfp4;
  ExpectError(MakeSyntheticCheckpoint(folder / "m", options), StatusCode::kInvalidArgument, "mxfp4",
              "mixtral");
  options.quantise = Quantisation::kFp8;
  ExpectError(MakeSyntheticCheckpoint(folder / "m", options), StatusCode::kInvalidArgument, "fp8",
              "mixtral");
}

}  // namespace
}  // namespace expertmesh::checkpoint
