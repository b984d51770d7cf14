#include "common/matmul/panel_product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "hwy/highway.h"
#include "hwy/targets.h"

namespace expertmesh {
namespace {

constexpr float kUntouched = -12345.0f;

std::vector<float> Random(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(generator);
  }
  return values;
}

// One output, summed as the header says, in plain arithmetic. This file is compiled without
// contraction.
float Expected(const float* x, const float* w, size_t inner, bool fused) {
  float y = 0.0f;
  for (size_t begin = 0; begin < inner; begin += 256) {
    float sum = 0.0f;
    for (size_t k = begin; k < std::min(inner, begin + 256); ++k) {
      sum = fused ? std::fma(x[k], w[k], sum) : x[k] * w[k] + sum;
    }
    y = begin == 0 ? sum : y + sum;
  }
  return y;
}

struct Sizes {
  size_t inner;
  size_t columns;
};

// y, [rows, columns], of rows that start at odd addresses, are apart, and leave what lies between
// them alone.
std::vector<float> Multiply(const std::vector<float>& packed, Sizes sizes, const float* x,
                            size_t rows) {
  const size_t padded = (sizes.columns + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
  const size_t x_stride = sizes.inner + 3;
  const size_t y_stride = padded + 5;
  std::vector<float> apart(1 + rows * x_stride, NAN);
  std::vector<float> y(1 + rows * y_stride, kUntouched);
  for (size_t row = 0; row < rows; ++row) {
    std::copy_n(x + row * sizes.inner, sizes.inner, apart.data() + 1 + row * x_stride);
  }
  PanelProduct{apart.data() + 1, x_stride,      rows,         sizes.inner,
               padded,           packed.data(), y.data() + 1, y_stride}
      .Run();
  std::vector<float> product;
  EXPECT_EQ(y[0], kUntouched);
  for (size_t row = 0; row < rows; ++row) {
    const float* const of_row = y.data() + 1 + row * y_stride;
    product.insert(product.end(), of_row, of_row + sizes.columns);
    EXPECT_EQ(std::count(of_row + padded, of_row + y_stride, kUntouched), 5) << "row " << row;
  }
  return product;
}

std::vector<float> Pack(const std::vector<float>& weights, Sizes sizes) {
  std::vector<float> packed(PackedPanelFloats(sizes.columns, sizes.inner));
  PackPanels(weights.data(), sizes.columns, sizes.inner, sizes.inner, packed.data());
  return packed;
}

// Once for each instruction set that this process may use.
class PanelProductTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
  // A fused multiply-add is part of AVX2 and all wider ones.
  bool fused() const { return GetParam() <= HWY_AVX2; }
};

TEST_P(PanelProductTest, SumsInTheOrderItPromises) {
  for (const Sizes sizes : {Sizes{1, 1}, {45, 7}, {255, 60}, {257, 64}, {512, 96}, {768, 208}}) {
    const std::vector<float> weights = Random(sizes.inner * sizes.columns, 1);
    const std::vector<float> packed = Pack(weights, sizes);
    const std::vector<float> x = Random(30 * sizes.inner, 2);
    for (size_t rows = 0; rows <= 30; ++rows) {
      const std::vector<float> y = Multiply(packed, sizes, x.data(), rows);
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t row = i / sizes.columns, column = i % sizes.columns;
        const float expected =
            Expected(x.data() + row * sizes.inner, weights.data() + column * sizes.inner,
                     sizes.inner, fused());
        ASSERT_EQ(y[i], expected) << rows << " rows, inner " << sizes.inner << ": row " << row
                                  << ", column " << column;
      }
    }
  }
}

TEST_P(PanelProductTest, IsAsExactAsFloat32Allows) {
  const Sizes sizes = {2048, 48};
  const std::vector<float> weights = Random(sizes.inner * sizes.columns, 3);
  const std::vector<float> x = Random(5 * sizes.inner, 4);
  const std::vector<float> y = Multiply(Pack(weights, sizes), sizes, x.data(), 5);
  double worst = 0;
  double largest = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    double sum = 0;
    for (size_t k = 0; k < sizes.inner; ++k) {
      sum += double{x[i / sizes.columns * sizes.inner + k]} *
             double{weights[i % sizes.columns * sizes.inner + k]};
    }
    worst = std::max(worst, std::abs(y[i] - sum));
    largest = std::max(largest, std::abs(sum));
  }
  // One chain over all of the inner dimension is four times as far off.
  EXPECT_LE(worst / largest, 6e-7);
}

TEST_P(PanelProductTest, ARowDoesNotDependOnTheOthers) {
  const Sizes sizes = {576, 128};
  const std::vector<float> packed = Pack(Random(sizes.inner * sizes.columns, 5), sizes);
  std::vector<float> x = Random(1000 * sizes.inner, 6);
  std::vector<float> alone;
  for (size_t row = 0; row < 1000; ++row) {
    const std::vector<float> y = Multiply(packed, sizes, x.data() + row * sizes.inner, 1);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (const size_t rows :
       {2, 3, 5, 6, 7, 8, 11, 12, 13, 23, 24, 25, 47, 48, 49, 64, 73, 100, 257, 1000}) {
    const size_t first = 1000 - rows;  // Each row in many places.
    const std::vector<float> y = Multiply(packed, sizes, x.data() + first * sizes.inner, rows);
    EXPECT_EQ(std::memcmp(y.data(), alone.data() + first * sizes.columns, y.size() * sizeof(float)),
              0)
        << rows << " rows";
  }
  // Not on their values either: NaN and Inf stay in their rows.
  std::fill_n(x.data(), sizes.inner, NAN);
  std::fill_n(x.data() + 2 * sizes.inner, sizes.inner, INFINITY);
  const std::vector<float> y = Multiply(packed, sizes, x.data(), 7);
  for (const size_t row : {1, 3, 4, 5, 6}) {
    EXPECT_EQ(std::memcmp(y.data() + row * sizes.columns, alone.data() + row * sizes.columns,
                          sizes.columns * sizeof(float)),
              0)
        << "row " << row;
  }
}

TEST(PackPanelsTest, PaddingIsZeroWhateverWasThere) {
  std::vector<float> packed(PackedPanelFloats(3, 2), NAN);
  ASSERT_EQ(packed.size(), 2 * kPanelColumns);
  const std::vector<float> weights = {1, 2, NAN, 3, 4, NAN, 5, 6, NAN};  // A stride of three.
  PackPanels(weights.data(), 3, 2, 3, packed.data());
  std::vector<float> expected(2 * kPanelColumns, 0.0f);
  for (const size_t k : {0, 1}) {
    for (const size_t column : {0, 1, 2}) {
      expected[k * kPanelColumns + column] = static_cast<float>(1 + 2 * column + k);
    }
  }
  EXPECT_EQ(packed, expected);
}

std::string TargetName(const testing::TestParamInfo<int64_t>& info) {
  return hwy::TargetName(info.param);
}

// The first product tells Highway what EXPERTMESH_MAX_CPU_ISA allows.
std::vector<int64_t> Targets() {
  PanelProduct{nullptr, 0, 0, 1, 0, nullptr, nullptr, 0}.Run();
  return hwy::SupportedAndGeneratedTargets();
}

INSTANTIATE_TEST_SUITE_P(Targets, PanelProductTest, testing::ValuesIn(Targets()), TargetName);

}  // namespace
}  // namespace expertmesh
