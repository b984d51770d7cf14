#include "common/matmul/tile_product.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"
#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::matmul {
namespace {

constexpr float kUntouched = -12345.0f;

// One matrix, packed, and as floats.
struct Weights {
  Weights(std::mt19937& random, size_t inner, size_t columns)
      : inner(inner),
        columns(columns),
        values(NormalBF16Values(columns * inner, random)),
        packed(PackedTileBytes(columns, inner)) {
    std::vector<uint16_t> source(columns * inner);
    ConvertElements(Dtype::kF32, values.data(), Dtype::kBF16, source.data(), source.size());
    PackTiles(source.data(), columns, inner, packed.data());
  }

  const size_t inner;
  const size_t columns;
  const std::vector<float> values;  // [columns, inner]
  AlignedBuffer packed;
};

// The product of rows [first, first + rows) of `x`, [.., inner], as [rows, columns].
std::vector<float> Multiply(const Weights& weights, const std::vector<float>& x, size_t first,
                            size_t rows, size_t row_bytes) {
  AlignedBuffer rows_of_x(rows * row_bytes);
  for (size_t row = 0; row < rows; ++row) {
    ConvertElements(Dtype::kF32, x.data() + (first + row) * weights.inner, Dtype::kBF16,
                    rows_of_x.data() + row * row_bytes, weights.inner);
  }
  const size_t strips = weights.columns / kStripColumns;
  std::vector<float> y(rows * weights.columns + kStripColumns, kUntouched);
  const TileProduct product{rows_of_x.data(),      row_bytes, rows, weights.inner, weights.columns,
                            weights.packed.data(), y.data()};
  product.Run();
  EXPECT_EQ(std::count(y.end() - kStripColumns, y.end(), kUntouched), kStripColumns);
  std::vector<float> in_rows(rows * weights.columns);
  for (size_t strip = 0; strip < strips; ++strip) {
    for (size_t row = 0; row < rows; ++row) {
      std::copy_n(y.data() + (strip * rows + row) * kStripColumns, kStripColumns,
                  in_rows.data() + row * weights.columns + strip * kStripColumns);
    }
  }
  return in_rows;
}

// On any CPU: what the instruction reads as pairs of the inner dimension of 64 columns, padded with
// zeros.
TEST(PackTilesTest, LiesAsTheInstructionReadsIt) {
  const size_t columns = 70, inner = 35;
  std::vector<uint16_t> weights(columns * inner);
  std::iota(weights.begin(), weights.end(), uint16_t{1});
  std::vector<uint16_t> packed(PackedTileBytes(columns, inner) / sizeof(uint16_t), uint16_t{7});
  ASSERT_EQ(packed.size(), size_t{128 * 64});
  PackTiles(weights.data(), columns, inner, reinterpret_cast<uint8_t*>(packed.data()));
  for (size_t column = 0; column < 128; ++column) {
    for (size_t k = 0; k < 64; ++k) {
      const size_t place = column / kStripColumns * 64 * kStripColumns +
                           (k / 2 * kStripColumns + column % kStripColumns) * 2 + k % 2;
      const uint16_t expected =
          column < columns && k < inner ? weights[column * inner + k] : uint16_t{0};
      ASSERT_EQ(packed[place], expected) << "column " << column << ", inner " << k;
    }
  }
}

class TileProductTest : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (!TilesAvailable()) {
      GTEST_SKIP() << "this CPU has no AMX";
    }
  }
  std::mt19937 random_{7};
};

// Numbers of rows around those at which the tiles are used in another way.
TEST_P(TileProductTest, IsTheProductOfAnyNumberOfRows) {
  const size_t rows = GetParam();
  for (const auto& [inner, columns] :
       {std::pair<size_t, size_t>{32, 64}, {288, 192}, {2048, 128}}) {
    SCOPED_TRACE("inner " + std::to_string(inner) + ", columns " + std::to_string(columns));
    const Weights weights(random_, inner, columns);
    const std::vector<float> x = NormalBF16Values(rows * inner, random_);
    for (const size_t padding : {0, 64}) {
      const std::vector<float> y =
          Multiply(weights, x, 0, rows, inner * sizeof(uint16_t) + padding);
      std::vector<double> sums;
      std::vector<double> bounds;
      for (size_t i = 0; i < y.size(); ++i) {
        double sum = 0;
        double size = 0;
        for (size_t j = 0; j < inner; ++j) {
          const double term =
              double{x[i / columns * inner + j]} * double{weights.values[i % columns * inner + j]};
          sum += term;
          size += std::abs(term);
        }
        // float32 sums of `inner` terms: one rounding of 2^-24 each, at worst all one way; random
        // ones grow with the root.
        sums.push_back(sum);
        bounds.push_back(size * std::sqrt(static_cast<double>(inner)) * 0x1p-24);
      }
      ASSERT_TRUE(RowsNear(y, sums, columns, [&](size_t i) { return bounds[i]; }));
    }
  }
}

// Bit by bit: alone, and as the first, a middle or the last of many.
TEST_P(TileProductTest, ARowDoesNotDependOnTheOthers) {
  const size_t rows = GetParam();
  const Weights weights(random_, 768, 128);
  const std::vector<float> x = NormalBF16Values(rows * weights.inner, random_);
  const size_t row_bytes = weights.inner * sizeof(uint16_t) + 64;
  const std::vector<float> together = Multiply(weights, x, 0, rows, row_bytes);
  for (const size_t row : {size_t{0}, rows / 2, rows - 1}) {
    const std::vector<float> alone = Multiply(weights, x, row, 1, row_bytes);
    const auto beside =
        absl::MakeConstSpan(together).subspan(row * weights.columns, weights.columns);
    EXPECT_TRUE(SameBits(alone, beside, weights.columns)) << "row " << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, TileProductTest,
                         testing::Values(1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 64, 65, 100, 256),
                         [](const auto& info) { return std::to_string(info.param); });

}  // namespace
}  // namespace expertmesh::matmul
