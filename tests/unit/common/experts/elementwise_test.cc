#include "common/experts/elementwise.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "common/tensor/dtype.h"
#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"

namespace expertmesh::experts {
namespace {

// silu(gate) of many values, with up = 1.
std::vector<float> Silu(const std::vector<float>& gate) {
  const size_t blocks = (gate.size() + kInterleave - 1) / kInterleave;
  std::vector<float> z(2 * kInterleave * blocks, 1.0f);
  for (size_t i = 0; i < gate.size(); ++i) {
    z[i / kInterleave * 2 * kInterleave + i % kInterleave] = gate[i];
  }
  std::vector<float> out(kInterleave * blocks);
  GetElementwiseOps().activate_f32({}, z.data(), nullptr, blocks, out.data());
  out.resize(gate.size());
  return out;
}

TEST(ElementwiseTest, SiluIsAccurate) {
  std::vector<float> gate;
  for (float x = -86.0f; x < 120.0f; x += 0.00137f) {
    gate.push_back(x);
  }
  const auto silu = Silu(gate);
  double worst = 0.0;
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i];
    const double expected = x / (1.0 + std::exp(-x));
    if (std::abs(expected) > 1e-30) {
      worst = std::max(worst, std::abs(silu[i] - expected) / std::abs(expected));
    }
  }
  EXPECT_LT(worst, 1e-6);
}

TEST(ElementwiseTest, SiluAtTheEnds) {
  const float inf = std::numeric_limits<float>::infinity();
  const auto silu = Silu({0.0f, -100.0f, -1e30f, 1e30f, inf, std::nanf(""), -inf});
  EXPECT_EQ(silu[0], 0.0f);
  EXPECT_EQ(silu[1], 0.0f);
  EXPECT_EQ(silu[2], 0.0f);
  EXPECT_EQ(silu[3], 1e30f);
  EXPECT_EQ(silu[4], inf);
  EXPECT_TRUE(std::isnan(silu[5]));
  EXPECT_FALSE(std::isfinite(silu[6]));
}

TEST(ElementwiseTest, MultipliesByUpAndRoundsOnce) {
  std::vector<float> z(2 * kInterleave);
  for (size_t j = 0; j < kInterleave; ++j) {
    z[j] = 0.1f * static_cast<float>(j) - 1.5f;
    z[kInterleave + j] = 0.37f * static_cast<float>(j) - 3.0f;
  }
  std::vector<float> f32(kInterleave);
  std::vector<uint16_t> bf16(kInterleave);
  GetElementwiseOps().activate_f32({}, z.data(), nullptr, 1, f32.data());
  GetElementwiseOps().activate_bf16({}, z.data(), nullptr, 1, bf16.data());
  std::vector<double> expected;
  std::vector<uint16_t> rounded;
  for (size_t j = 0; j < kInterleave; ++j) {
    const double x = z[j];
    expected.push_back(x / (1.0 + std::exp(-x)) * z[kInterleave + j]);
    rounded.push_back(BF16FromFloat(f32[j]));
  }
  EXPECT_TRUE(RowsNear(f32, expected, kInterleave, 1e-6));
  EXPECT_TRUE(SameRows(bf16, rounded, kInterleave));
}

const ActivationOptions kKinds[] = {{Activation::kSilu, true},
                                    {Activation::kRelu, true},
                                    {Activation::kClampedSwiglu, true, 7.0f, 1.702f},
                                    {Activation::kSilu, false},
                                    {Activation::kRelu, false}};

double Expected(const ActivationOptions& options, double gate, double up) {
  const auto sigmoid = [](double x) { return 1.0 / (1.0 + std::exp(-x)); };
  const double x = options.gated ? gate : up;
  const double factor = options.gated ? up : 1.0;
  switch (options.activation) {
    case Activation::kSilu:
      return x * sigmoid(x) * factor;
    case Activation::kRelu:
      return std::max(x, 0.0) * factor;
    case Activation::kClampedSwiglu:
      break;
  }
  const double g = std::min(gate, 7.0);
  return g * sigmoid(1.702f * g) * (std::clamp(up, -7.0, 7.0) + 1.0);
}

TEST(ElementwiseTest, EveryActivationWithAndWithoutBias) {
  constexpr size_t kBlocks = 3;
  for (const ActivationOptions& options : kKinds) {
    const size_t turns = options.gated ? 2 : 1;
    std::vector<float> z, bias;
    for (size_t i = 0; i < turns * kBlocks * kInterleave; ++i) {
      z.push_back(0.17f * static_cast<float>(i) - 12.0f);
      bias.push_back(0.5f - 0.03f * static_cast<float>(i % 29));
    }
    for (const bool with_bias : {false, true}) {
      std::vector<float> out(kBlocks * kInterleave);
      GetElementwiseOps().activate_f32(options, z.data(), with_bias ? bias.data() : nullptr,
                                       kBlocks, out.data());
      std::vector<double> expected;
      for (size_t i = 0; i < out.size(); ++i) {
        const size_t first = i / kInterleave * turns * kInterleave + i % kInterleave;
        const size_t second = first + (turns - 1) * kInterleave;
        const auto at = [&](size_t k) { return with_bias ? z[k] + bias[k] : z[k]; };
        expected.push_back(Expected(options, at(first), at(second)));
      }
      EXPECT_TRUE(RowsNear(out, expected, kInterleave,
                           [&](size_t i) { return 1e-6 * (1.0 + std::abs(expected[i])); }))
          << static_cast<int>(options.activation) << " " << options.gated << " " << with_bias;
    }
  }
}

// MOE_SPEC 12.2.
TEST(ElementwiseTest, ClampedSwigluGoldenValues) {
  const ActivationOptions options = {Activation::kClampedSwiglu, true, 7.0f, 1.702f};
  std::vector<float> z(2 * kInterleave, 0.0f);
  const float gate[] = {1, -1, 8, -9, std::nanf(""), 1};
  const float up[] = {1, 0.5f, 10, -9, 1, std::nanf("")};
  std::copy(std::begin(gate), std::end(gate), z.begin());
  std::copy(std::begin(up), std::end(up), z.begin() + kInterleave);
  std::vector<float> out(kInterleave);
  GetElementwiseOps().activate_f32(options, z.data(), nullptr, 1, out.data());
  EXPECT_NEAR(out[0], 1.6915915f, 2e-7);
  EXPECT_NEAR(out[1], -0.2313064f, 1e-7);
  EXPECT_NEAR(out[2], 55.999625f, 4e-6);
  EXPECT_NEAR(out[3], 1.2e-05f, 5e-7);
  EXPECT_TRUE(std::isnan(out[4]));
  EXPECT_TRUE(std::isnan(out[5]));
}

TEST(ElementwiseTest, ReluAtTheEnds) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> z(kInterleave, -1.0f);
  z[1] = inf;
  z[2] = -inf;
  z[3] = std::nanf("");
  std::vector<float> out(kInterleave);
  GetElementwiseOps().activate_f32({Activation::kRelu, false}, z.data(), nullptr, 1, out.data());
  EXPECT_EQ(out[0], 0.0f);
  EXPECT_EQ(out[1], inf);
  EXPECT_EQ(out[2], 0.0f);
  EXPECT_TRUE(std::isnan(out[3]));
}

TEST(ElementwiseTest, EveryInstructionSetGivesTheSameBits) {
  constexpr size_t kBlocks = 5;
  std::vector<float> z, bias;
  for (size_t i = 0; i < 2 * kBlocks * kInterleave; ++i) {
    z.push_back(std::sin(0.7f * static_cast<float>(i)) * 20.0f);
    bias.push_back(std::cos(0.3f * static_cast<float>(i)));
  }
  const ElementwiseOps& first = *AllElementwiseOps().front();
  for (const ElementwiseOps* ops : AllElementwiseOps()) {
    for (const ActivationOptions& options : kKinds) {
      for (const float* b :
           {static_cast<const float*>(nullptr), static_cast<const float*>(bias.data())}) {
        std::vector<float> expected(kBlocks * kInterleave), actual(kBlocks * kInterleave);
        first.activate_f32(options, z.data(), b, kBlocks, expected.data());
        ops->activate_f32(options, z.data(), b, kBlocks, actual.data());
        EXPECT_TRUE(SameBits(actual, expected, kInterleave));
        std::vector<uint16_t> expected16(kBlocks * kInterleave), actual16(kBlocks * kInterleave);
        first.activate_bf16(options, z.data(), b, kBlocks, expected16.data());
        ops->activate_bf16(options, z.data(), b, kBlocks, actual16.data());
        EXPECT_TRUE(SameBits(actual16, expected16, kInterleave));
      }
    }
    std::vector<float> expected = bias, actual = bias;
    first.accumulate_biased(0.3f, z.data(), bias.data(), bias.size(), expected.data());
    ops->accumulate_biased(0.3f, z.data(), bias.data(), bias.size(), actual.data());
    EXPECT_TRUE(SameBits(actual, expected, kInterleave));
  }
}

// Any count: vectors and what is left over give the same bits as one element at a time.
TEST(ElementwiseTest, ScalesAndAccumulatesAnyCount) {
  for (size_t count = 0; count < 70; ++count) {
    std::vector<float> in, sum, scaled(count);
    std::vector<uint16_t> in16, scaled16(count);
    for (size_t i = 0; i < count; ++i) {
      in.push_back(0.1f * static_cast<float>(i) - 2.0f);
      in16.push_back(BF16FromFloat(in[i]));
      sum.push_back(1.0f / static_cast<float>(i + 1));
    }
    std::vector<float> biased = sum;
    const std::vector<float> before = sum;
    GetElementwiseOps().scale_f32(0.3f, in.data(), count, scaled.data());
    GetElementwiseOps().scale_bf16(0.3f, in16.data(), count, scaled16.data());
    GetElementwiseOps().accumulate(0.7f, in.data(), count, sum.data());
    GetElementwiseOps().accumulate_biased(0.7f, in.data(), before.data(), count, biased.data());
    std::vector<float> right_scaled, right_sum, right_biased;
    std::vector<uint16_t> right_scaled16;
    for (size_t i = 0; i < count; ++i) {
      right_scaled.push_back(0.3f * in[i]);
      right_scaled16.push_back(BF16FromFloat(0.3f * FloatFromBF16(in16[i])));
      volatile float product = 0.7f * in[i];  // Rounded: no fused multiply-add.
      right_sum.push_back(before[i] + product);
      volatile float biased_product = 0.7f * (in[i] + before[i]);
      right_biased.push_back(before[i] + biased_product);
    }
    EXPECT_TRUE(SameRows(scaled, right_scaled, 1));
    EXPECT_TRUE(SameRows(scaled16, right_scaled16, 1));
    EXPECT_TRUE(SameRows(sum, right_sum, 1));
    EXPECT_TRUE(SameRows(biased, right_biased, 1));
  }
}

}  // namespace
}  // namespace expertmesh::experts
