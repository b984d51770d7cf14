#include "common/matmul/panel_product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/matmul/panel_dot.h"
#include "common/tensor/dtype.h"
#include "hwy/highway.h"
#include "hwy/targets.h"
#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::matmul {
namespace {

constexpr float kUntouched = -12345.0f;

std::vector<float> AsFloats(const std::vector<float>& values) { return values; }
std::vector<float> AsFloats(const std::vector<uint16_t>& values) {
  std::vector<float> floats(values.size());
  ConvertElements(Dtype::kBF16, values.data(), Dtype::kF32, floats.data(), values.size());
  return floats;
}

template <typename Element>
std::vector<Element> RandomElements(size_t count, uint32_t seed) {
  const std::vector<float> values = NormalValues(count, seed);
  std::vector<Element> elements(count);
  ConvertElements(Dtype::kF32, values.data(),
                  sizeof(Element) == sizeof(float) ? Dtype::kF32 : Dtype::kBF16, elements.data(),
                  count);
  return elements;
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

// What the sums of `x` and `w` are off by, at worst, relative to the largest.
double WorstError(const std::vector<float>& x, const std::vector<float>& w, size_t inner,
                  const std::vector<float>& y) {
  const size_t columns = w.size() / inner;
  double worst = 0;
  double largest = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    double sum = 0;
    for (size_t k = 0; k < inner; ++k) {
      sum += double{x[i / columns * inner + k]} * double{w[i % columns * inner + k]};
    }
    worst = std::max(worst, std::abs(y[i] - sum));
    largest = std::max(largest, std::abs(sum));
  }
  return worst / largest;
}

struct Sizes {
  size_t inner;
  size_t columns;
};

void Run(const PanelProduct<float>& product) { RunPanels(product); }
void Run(const PanelProduct<uint16_t>& product) {
  AlignedBuffer widened;
  RunPanels(product, &widened);
}

// y, [rows, columns], of rows that start at odd addresses, are apart, and leave what lies between
// them alone.
template <typename Element>
std::vector<float> Multiply(const std::vector<Element>& packed, Sizes sizes, const Element* x,
                            size_t rows) {
  const size_t padded = (sizes.columns + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
  const size_t x_stride = sizes.inner + 3;
  const size_t y_stride = padded + 5;
  std::vector<Element> apart(1 + rows * x_stride, Element(0x7fc0));
  std::vector<float> y(1 + rows * y_stride, kUntouched);
  for (size_t row = 0; row < rows; ++row) {
    std::copy_n(x + row * sizes.inner, sizes.inner, apart.data() + 1 + row * x_stride);
  }
  Run(PanelProduct<Element>{apart.data() + 1, x_stride, rows, sizes.inner, padded, packed.data(),
                            y.data() + 1, y_stride});
  std::vector<float> product;
  EXPECT_EQ(y[0], kUntouched);
  for (size_t row = 0; row < rows; ++row) {
    const float* const of_row = y.data() + 1 + row * y_stride;
    product.insert(product.end(), of_row, of_row + sizes.columns);
    EXPECT_EQ(std::count(of_row + padded, of_row + y_stride, kUntouched), 5) << "row " << row;
  }
  return product;
}

template <typename Element>
std::vector<Element> Pack(const std::vector<Element>& weights, Sizes sizes) {
  std::vector<Element> packed(PackedPanelElements(sizes.columns, sizes.inner));
  PackPanels(weights.data(), sizes.columns, sizes.inner, sizes.inner, packed.data());
  return packed;
}

// Once for each instruction set that this process may use.
class PanelProductTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }

  // A fused multiply-add is part of AVX2 and all wider ones.
  static bool fused() { return GetParam() <= HWY_AVX2; }

  template <typename Element>
  void ExpectTheOrder(absl::Span<const Sizes> all) {
    for (const Sizes sizes : all) {
      const auto weights = RandomElements<Element>(sizes.inner * sizes.columns, 1);
      const auto packed = Pack(weights, sizes);
      const auto x = RandomElements<Element>(30 * sizes.inner, 2);
      const std::vector<float> w32 = AsFloats(weights), x32 = AsFloats(x);
      for (size_t rows = 0; rows <= 30; ++rows) {
        const std::vector<float> y = Multiply(packed, sizes, x.data(), rows);
        std::vector<float> expected;
        for (size_t i = 0; i < y.size(); ++i) {
          const size_t row = i / sizes.columns, column = i % sizes.columns;
          expected.push_back(
              Expected(&x32[row * sizes.inner], &w32[column * sizes.inner], sizes.inner, fused()));
        }
        ASSERT_TRUE(SameRows(y, expected, sizes.columns)) << rows << " rows, inner " << sizes.inner;
      }
    }
  }
};

constexpr Sizes kEven[] = {{2, 1}, {46, 7}, {256, 60}, {258, 64}, {512, 96}, {768, 208}};
constexpr Sizes kOdd[] = {{1, 1}, {45, 7}, {255, 60}, {257, 64}};

TEST_P(PanelProductTest, FloatsAreSummedInTheOrderPromised) {
  ExpectTheOrder<float>(kEven);
  ExpectTheOrder<float>(kOdd);
}

TEST_P(PanelProductTest, Bf16IsSummedInTheOrderOfFloats) {
  if (DotAvailable()) {
    GTEST_SKIP() << "this CPU has an instruction with an order of its own: PanelDotTest";
  }
  ExpectTheOrder<uint16_t>(kEven);
}

// The instruction adds two products at a time, so sums in plain arithmetic have other last bits.
TEST(PanelDotTest, IsTheProductOfAnyNumberOfRows) {
  for (const Sizes sizes : kEven) {
    const auto weights = RandomElements<uint16_t>(sizes.inner * sizes.columns, 1);
    const auto packed = Pack(weights, sizes);
    const auto x = RandomElements<uint16_t>(30 * sizes.inner, 2);
    for (const size_t rows : {1, 2, 5, 6, 7, 12, 13, 30}) {
      const std::vector<float> y = Multiply(packed, sizes, x.data(), rows);
      EXPECT_LE(WorstError(AsFloats(x), AsFloats(weights), sizes.inner, y), 6e-7)
          << rows << " rows, inner " << sizes.inner << ", columns " << sizes.columns;
    }
  }
}

TEST_P(PanelProductTest, IsAsExactAsFloat32Allows) {
  const Sizes sizes = {2048, 48};
  const std::vector<float> weights = NormalValues(sizes.inner * sizes.columns, 3);
  const std::vector<float> x = NormalValues(5 * sizes.inner, 4);
  const std::vector<float> y = Multiply(Pack(weights, sizes), sizes, x.data(), 5);
  // One chain over all of the inner dimension is four times as far off.
  EXPECT_LE(WorstError(x, weights, sizes.inner, y), 6e-7);
}

template <typename Element>
void ExpectRowsOfTheirOwn() {
  const Sizes sizes = {576, 128};
  const auto packed = Pack(RandomElements<Element>(sizes.inner * sizes.columns, 5), sizes);
  auto x = RandomElements<Element>(1000 * sizes.inner, 6);
  std::vector<float> alone;
  for (size_t row = 0; row < 1000; ++row) {
    const std::vector<float> y = Multiply(packed, sizes, x.data() + row * sizes.inner, 1);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (const size_t rows :
       {2, 3, 5, 6, 7, 8, 11, 12, 13, 23, 24, 25, 47, 48, 49, 64, 73, 100, 257, 1000}) {
    const size_t first = 1000 - rows;  // Each row in many places.
    const std::vector<float> y = Multiply(packed, sizes, x.data() + first * sizes.inner, rows);
    const auto expected = absl::MakeConstSpan(alone).subspan(first * sizes.columns);
    EXPECT_TRUE(SameBits(y, expected, sizes.columns)) << rows << " rows";
  }
  // Not on their values either: NaN stays in its rows.
  const float nan = NAN;
  for (const size_t row : {0, 2}) {
    for (size_t k = 0; k < sizes.inner; ++k) {
      ConvertElements(Dtype::kF32, &nan,
                      sizeof(Element) == sizeof(float) ? Dtype::kF32 : Dtype::kBF16,
                      &x[row * sizes.inner + k], 1);
    }
  }
  const std::vector<float> y = Multiply(packed, sizes, x.data(), 7);
  for (const size_t row : {1, 3, 4, 5, 6}) {
    const size_t begin = row * sizes.columns;
    EXPECT_TRUE(SameBits(absl::MakeConstSpan(y).subspan(begin, sizes.columns),
                         absl::MakeConstSpan(alone).subspan(begin, sizes.columns), sizes.columns))
        << "row " << row;
  }
}

TEST_P(PanelProductTest, ARowDoesNotDependOnTheOthers) {
  ExpectRowsOfTheirOwn<float>();
  ExpectRowsOfTheirOwn<uint16_t>();
}

TEST(PackPanelsTest, PaddingIsZeroWhateverWasThere) {
  std::vector<float> packed(PackedPanelElements(3, 2), NAN);
  ASSERT_EQ(packed.size(), 2 * kPanelColumns);
  const std::vector<float> weights = {1, 2, NAN, 3, 4, NAN, 5, 6, NAN};  // A stride of three.
  PackPanels(weights.data(), 3, 2, 3, packed.data());
  std::vector<float> expected(2 * kPanelColumns, 0.0f);
  for (const size_t k : {0, 1}) {
    for (const size_t column : {0, 1, 2}) {
      expected[k * kPanelColumns + column] = static_cast<float>(1 + 2 * column + k);
    }
  }
  EXPECT_TRUE(SameRows(packed, expected, kPanelColumns));
}

std::string TargetName(const testing::TestParamInfo<int64_t>& info) {
  return hwy::TargetName(info.param);
}

// The first product tells Highway what EXPERTMESH_MAX_CPU_ISA allows.
std::vector<int64_t> Targets() {
  RunPanels(PanelProduct<float>{nullptr, 0, 0, 1, 0, nullptr, nullptr, 0});
  return hwy::SupportedAndGeneratedTargets();
}

INSTANTIATE_TEST_SUITE_P(Targets, PanelProductTest, testing::ValuesIn(Targets()), TargetName);

}  // namespace
}  // namespace expertmesh::matmul
