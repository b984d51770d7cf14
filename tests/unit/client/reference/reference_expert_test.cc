// The reference's own decoding of weights, and its expert math.
#include "client/cpp/reference/reference_expert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "client/cpp/reference/reference_matrix.h"

namespace expertmesh::reference {
namespace {

using testing::ElementsAre;
using testing::FloatEq;
using testing::FloatNear;
using testing::HasSubstr;

MatrixView View(const std::vector<float>& data, size_t rows, size_t cols) {
  return MatrixView::RowMajor(data.data(), Dtype::kF32, rows, cols);
}

std::vector<float> Values(const MatrixView& view) {
  const auto matrix = DecodeReference(view);
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  return matrix.ok() ? matrix->values : std::vector<float>();
}

TEST(ReferenceMatrixTest, Strides) {
  const std::vector<float> data = {0, 1, 2, 3, 4, 5, 6, 7};
  MatrixView view = View(data, 2, 2);
  view.row_stride = 1;  // Transposed, every other column.
  view.col_stride = 4;
  EXPECT_THAT(Values(view), ElementsAre(0, 4, 1, 5));
  view.row_stride = 4;
  view.col_stride = 2;  // Even elements.
  EXPECT_THAT(Values(view), ElementsAre(0, 2, 4, 6));
}

TEST(ReferenceMatrixTest, SixteenBits) {
  const std::vector<uint16_t> half = {0x3c00, 0xc000, 0x0001, 0x7bff};
  EXPECT_THAT(Values(MatrixView::RowMajor(half.data(), Dtype::kF16, 2, 2)),
              ElementsAre(1.0f, -2.0f, std::ldexp(1.0f, -24), 65504.0f));
  const std::vector<uint16_t> special = {0x7c00, 0x7e00};
  const std::vector<float> read = Values(MatrixView::RowMajor(special.data(), Dtype::kF16, 1, 2));
  EXPECT_TRUE(std::isinf(read[0]));
  EXPECT_TRUE(std::isnan(read[1]));
  const std::vector<uint16_t> brain = {0x3f80, 0xc040};
  EXPECT_THAT(Values(MatrixView::RowMajor(brain.data(), Dtype::kBF16, 1, 2)),
              ElementsAre(1.0f, -3.0f));
}

TEST(ReferenceMatrixTest, EightBitsWithBlocksOfScales) {
  // 1, 448 (the largest), 2^-9 (the smallest), -1.75; then zeroes and NaN.
  const std::vector<uint8_t> data = {0x38, 0x7e, 0x01, 0xbe, 0x00, 0x80, 0x7f, 0xff};
  MatrixView view = MatrixView::RowMajor(data.data(), Dtype::kF8E4M3, 2, 4);
  std::vector<float> plain = Values(view);
  EXPECT_THAT(std::vector<float>(plain.begin(), plain.begin() + 4),
              ElementsAre(1.0f, 448.0f, std::ldexp(1.0f, -9), -1.75f));
  EXPECT_TRUE(std::isnan(plain[6]) && std::isnan(plain[7]));
  // Blocks of 1 x 3: the last of a row is not full.
  const std::vector<float> scales = {2.0f, 10.0f, 1.0f, 1.0f};
  view.scales = {reinterpret_cast<const uint8_t*>(scales.data()), Dtype::kF32, 1, 3, 2};
  const std::vector<float> scaled = Values(view);
  EXPECT_EQ(scaled[0], 2.0f);
  EXPECT_EQ(scaled[2], std::ldexp(1.0f, -8));
  EXPECT_EQ(scaled[3], -17.5f);
  // A matrix that begins with the third column of its first block.
  view.scales.col_offset = 2;
  EXPECT_EQ(Values(view)[0], 2.0f);
  EXPECT_EQ(Values(view)[3], -17.5f);
  EXPECT_EQ(Values(view)[2], 10.0f * std::ldexp(1.0f, -9));
  // Powers of two: 127 is 1, 129 is 4.
  const std::vector<uint8_t> powers = {127, 129, 127, 255};
  view.scales = {powers.data(), Dtype::kF8E8M0, 1, 3, 2};
  EXPECT_EQ(Values(view)[0], 1.0f);
  EXPECT_EQ(Values(view)[3], -7.0f);
  EXPECT_TRUE(std::isnan(Values(view)[7]));
}

TEST(ReferenceMatrixTest, ScalesOfSixteenBits) {
  const std::vector<uint8_t> data = {0x39, 0xb9};        // 1.125 and its opposite.
  const std::vector<uint16_t> brain = {0x3f81, 0x4000};  // 1 + 2^-7, 2.
  const std::vector<uint16_t> half = {0x3c01, 0x0001};   // 1 + 2^-10, 2^-24.
  MatrixView view = MatrixView::RowMajor(data.data(), Dtype::kF8E4M3, 1, 2);
  view.scales = {reinterpret_cast<const uint8_t*>(brain.data()), Dtype::kBF16, 1, 1, 2};
  EXPECT_THAT(Values(view), ElementsAre(1.1337890625f, -2.25f));
  view.scales = {reinterpret_cast<const uint8_t*>(half.data()), Dtype::kF16, 1, 1, 2};
  EXPECT_THAT(Values(view), ElementsAre(1.1260986328125f, -0x1.2p-24f));
}

TEST(ReferenceMatrixTest, FourBits) {
  const std::vector<uint8_t> data = {0x21, 0xf8};
  MatrixView view = MatrixView::RowMajor(data.data(), Dtype::kF4, 1, 4);
  EXPECT_THAT(Values(view), ElementsAre(0.5f, 1.0f, 0.0f, -6.0f));
  const std::vector<uint8_t> scales = {128, 127};
  view.scales = {scales.data(), Dtype::kF8E8M0, 1, 2, 2};
  EXPECT_THAT(Values(view), ElementsAre(1.0f, 2.0f, 0.0f, -6.0f));
}

TEST(ReferenceMatrixTest, RefusesWhatIsNoWeight) {
  const std::vector<uint8_t> data(4);
  const auto read = DecodeReference(MatrixView::RowMajor(data.data(), Dtype::kI8, 2, 2));
  EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("I8"));
}

// An expert of width 1 over d_model 2: gate (1, 0), up (0, 1), down (1, 2), biases .5, 1, (3, 4).
class ReferenceExpertTest : public testing::Test {
 protected:
  // Output for a token (g, u).
  std::vector<float> Apply(float g, float u) {
    ExpertWeights weights{View(gate_, 1, 2), View(up_, 1, 2), View(down_, 2, 1)};
    if (!options_.gated) {
      weights.gate = {};
    }
    if (options_.bias) {
      weights.gate_bias = options_.gated ? View(gate_bias_, 1, 1) : MatrixView();
      weights.up_bias = View(up_bias_, 1, 1);
      weights.down_bias = View(down_bias_, 1, 2);
    }
    const auto expert = DecodeReferenceExpert(options_, weights);
    EXPECT_TRUE(expert.ok()) << expert.status();
    const std::vector<float> x = {g, u};
    std::vector<float> output(2);
    if (expert.ok()) {
      ApplyReferenceExpert(*expert, x.data(), output.data());
    }
    return output;
  }

  ExpertOptions options_ = {2, 1};
  const std::vector<float> gate_ = {1, 0};
  const std::vector<float> up_ = {0, 1};
  const std::vector<float> down_ = {1, 2};
  const std::vector<float> gate_bias_ = {0.5f};
  const std::vector<float> up_bias_ = {1};
  const std::vector<float> down_bias_ = {3, 4};
};

float Silu(float x) { return x / (1 + std::exp(-x)); }

TEST_F(ReferenceExpertTest, GatedSilu) {
  EXPECT_THAT(Apply(2, 3), ElementsAre(FloatEq(Silu(2) * 3), FloatEq(Silu(2) * 6)));
}

TEST_F(ReferenceExpertTest, PlainAndGatedRelu) {
  options_.activation = Activation::kRelu;
  EXPECT_THAT(Apply(2, 3), ElementsAre(6.0f, 12.0f));
  EXPECT_THAT(Apply(-2, 3), ElementsAre(0.0f, 0.0f));
  options_.gated = false;
  EXPECT_THAT(Apply(-2, 3), ElementsAre(3.0f, 6.0f));
  EXPECT_THAT(Apply(2, -3), ElementsAre(0.0f, 0.0f));
  options_.activation = Activation::kSilu;
  EXPECT_THAT(Apply(2, -3), ElementsAre(FloatEq(Silu(-3)), FloatEq(2 * Silu(-3))));
}

TEST_F(ReferenceExpertTest, Biases) {
  options_.bias = true;
  const float inner = Silu(2.5f) * 4;
  EXPECT_THAT(Apply(2, 3), ElementsAre(FloatEq(inner + 3), FloatEq(2 * inner + 4)));
  options_.activation = Activation::kRelu;
  options_.gated = false;
  EXPECT_THAT(Apply(2, -3), ElementsAre(3.0f, 4.0f));
  EXPECT_THAT(Apply(2, 3), ElementsAre(7.0f, 12.0f));
}

// The golden values of the specification.
TEST_F(ReferenceExpertTest, ClampedSwiglu) {
  options_.activation = Activation::kClampedSwiglu;
  EXPECT_THAT(Apply(1, 1)[0], FloatNear(1.6915915f, 1e-6f));
  EXPECT_THAT(Apply(-1, .5f)[0], FloatNear(-.2313064f, 1e-6f));
  EXPECT_THAT(Apply(8, 10)[0], FloatNear(55.999625f, 1e-5f));
  EXPECT_THAT(Apply(-9, -9)[0], FloatNear(1.2e-5f, 1e-6f));
  options_.swiglu_limit = 0.5f;
  options_.swiglu_alpha = 1.0f;
  EXPECT_THAT(Apply(8, 10)[0], FloatNear(Silu(0.5f) * 1.5f, 1e-6f));
}

TEST_F(ReferenceExpertTest, RefusesOtherShapes) {
  options_.intermediate_size = 2;
  const auto expert = DecodeReferenceExpert(
      options_, ExpertWeights{View(gate_, 1, 2), View(up_, 1, 2), View(down_, 2, 1)});
  EXPECT_EQ(expert.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(expert.status().message()), HasSubstr("up is [1, 2]; [2, 2]"));
}

}  // namespace
}  // namespace expertmesh::reference
