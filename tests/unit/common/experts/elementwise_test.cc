#include "common/experts/elementwise.h"

#include <cmath>
#include <limits>
#include <vector>

#include "common/tensor/dtype.h"
#include "gtest/gtest.h"

namespace expertmesh {
namespace {

// silu(gate) of many values, with up = 1.
std::vector<float> Silu(const std::vector<float>& gate) {
  const size_t blocks = (gate.size() + kInterleave - 1) / kInterleave;
  std::vector<float> z(2 * kInterleave * blocks, 1.0f);
  for (size_t i = 0; i < gate.size(); ++i) {
    z[i / kInterleave * 2 * kInterleave + i % kInterleave] = gate[i];
  }
  std::vector<float> out(kInterleave * blocks);
  GetElementwiseOps().silu_mul_f32(z.data(), blocks, out.data());
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
  GetElementwiseOps().silu_mul_f32(z.data(), 1, f32.data());
  GetElementwiseOps().silu_mul_bf16(z.data(), 1, bf16.data());
  for (size_t j = 0; j < kInterleave; ++j) {
    const double x = z[j];
    EXPECT_NEAR(f32[j], x / (1.0 + std::exp(-x)) * z[kInterleave + j], 1e-6);
    EXPECT_EQ(bf16[j], BF16FromFloat(f32[j]));
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
    const std::vector<float> before = sum;
    GetElementwiseOps().scale_f32(0.3f, in.data(), count, scaled.data());
    GetElementwiseOps().scale_bf16(0.3f, in16.data(), count, scaled16.data());
    GetElementwiseOps().accumulate(0.7f, in.data(), count, sum.data());
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(scaled[i], 0.3f * in[i]);
      EXPECT_EQ(scaled16[i], BF16FromFloat(0.3f * FloatFromBF16(in16[i])));
      volatile float product = 0.7f * in[i];  // Rounded: no fused multiply-add.
      EXPECT_EQ(sum[i], before[i] + product);
    }
  }
}

}  // namespace
}  // namespace expertmesh
