#include "common/wire/tensor_encode.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/tensor/int8_blocks.h"
#include "common/wire/tensor_copy.h"
#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh {
namespace {

constexpr size_t kRows = 6;
constexpr size_t kCols = 200;  // A block of int8 and a shorter one.
constexpr Dtype kWireTypes[] = {Dtype::kF32, Dtype::kBF16, Dtype::kF16, Dtype::kI8Block128};

std::vector<float> RandomMatrix(uint32_t seed) { return NormalValues(kRows * kCols, seed); }

std::vector<float> Decoded(const TensorFrame& tensor) {
  std::vector<float> values(tensor.rows * tensor.cols);
  DecodeRows(tensor, Dtype::kF32, values.data());
  return values;
}

// How far a value may be off: half a unit in the last place of bf16 (8 bits) and f16 (11 bits),
// half the scale of a block.
float Bound(Dtype dtype, float value, float largest_of_block) {
  switch (dtype) {
    case Dtype::kBF16:
      return std::fabs(value) * 0x1p-8f;
    case Dtype::kF16:
      return std::fabs(value) * 0x1p-11f + 0x1p-24f;
    case Dtype::kI8Block128:
      return largest_of_block / 127.0f * 0.50002f;
    default:
      return 0.0f;
  }
}

void ExpectClose(Dtype dtype, absl::Span<const float> row, absl::Span<const float> decoded) {
  std::vector<double> bounds;
  for (size_t begin = 0; begin < kCols; begin += 128) {
    const size_t end = std::min(begin + 128, kCols);
    float largest = 0.0f;
    for (size_t i = begin; i < end; ++i) {
      largest = std::max(largest, std::fabs(row[i]));
    }
    for (size_t i = begin; i < end; ++i) {
      bounds.push_back(Bound(dtype, row[i], largest));
    }
  }
  EXPECT_TRUE(RowsNear(decoded, row, kCols, [&](size_t i) { return bounds[i]; })) << NameOf(dtype);
}

TEST(TensorEncodeTest, RowsAreGatheredInTheOrderGiven) {
  const std::vector<float> matrix = RandomMatrix(1);
  const std::vector<uint32_t> rows = {4, 0, 5};
  for (const Dtype dtype : kWireTypes) {
    const TensorFrame tensor = EncodeRows(Dtype::kF32, matrix.data(), rows, kCols, dtype);
    EXPECT_EQ(tensor.dtype, dtype);
    ASSERT_EQ(tensor.rows, rows.size());
    ASSERT_EQ(tensor.cols, kCols);
    EXPECT_EQ(tensor.data.size() + tensor.scales.size(), 3 * WireRowBytes(dtype, kCols));
    const std::vector<float> decoded = Decoded(tensor);
    for (size_t i = 0; i < rows.size(); ++i) {
      ExpectClose(dtype, absl::MakeConstSpan(matrix).subspan(rows[i] * kCols, kCols),
                  absl::MakeConstSpan(decoded).subspan(i * kCols, kCols));
    }
  }
}

TEST(TensorEncodeTest, ARowHasTheSameBitsInAnyCompany) {
  const std::vector<float> matrix = RandomMatrix(2);
  for (const Dtype dtype : kWireTypes) {
    const TensorFrame all = EncodeRows(Dtype::kF32, matrix.data(), kRows, kCols, dtype);
    for (uint32_t row = 0; row < kRows; ++row) {
      const TensorFrame alone =
          EncodeRows(Dtype::kF32, matrix.data(), std::vector<uint32_t>{row}, kCols, dtype);
      const TensorFrame part = RowsOf(all, row, 1);
      EXPECT_EQ(part.rows, 1u);
      const std::string data = alone.data.Flatten();
      EXPECT_TRUE(SameRows(part.data.Flatten(), data, data.size())) << NameOf(dtype);
      EXPECT_TRUE(SameRows(part.scales.Flatten(), alone.scales.Flatten(), 1)) << NameOf(dtype);
    }
  }
}

TEST(TensorEncodeTest, PartsShareTheBytes) {
  const std::vector<float> matrix = RandomMatrix(3);
  const TensorFrame all = EncodeRows(Dtype::kF32, matrix.data(), kRows, kCols, Dtype::kI8Block128);
  const TensorFrame part = RowsOf(all, 2, 3);
  ASSERT_EQ(part.data.slices().size(), 1u);
  EXPECT_EQ(part.data.slices()[0].data(), all.data.slices()[0].data() + 2 * kCols);
  EXPECT_EQ(part.data.size(), 3 * kCols);
  EXPECT_EQ(part.scales.slices()[0].data(), all.scales.slices()[0].data() + 2 * 2 * sizeof(float));
  EXPECT_EQ(part.scales.size(), 3 * 2 * sizeof(float));
  EXPECT_TRUE(RowsOf(all, 2, 0).data.empty());
}

TEST(TensorEncodeTest, BytesOfARow) {
  EXPECT_EQ(WireRowBytes(Dtype::kF32, 300), 1200u);
  EXPECT_EQ(WireRowBytes(Dtype::kBF16, 300), 600u);
  EXPECT_EQ(WireRowBytes(Dtype::kF16, 300), 600u);
  EXPECT_EQ(WireRowBytes(Dtype::kI8Block128, 300), 300u + 3 * 4);
}

TEST(TensorEncodeTest, ErrorIsTheRelativeChangeOfTheRow) {
  // 1.00390625 lies half-way between two values of bf16 and becomes 1; the others are exact.
  const std::vector<float> row = {1.00390625f, 2.0f, -2.0f};
  EXPECT_DOUBLE_EQ(EncodingError(Dtype::kF32, row.data(), 3, Dtype::kBF16),
                   0.00390625 / std::sqrt(1.00390625 * 1.00390625 + 8.0));
  EXPECT_EQ(EncodingError(Dtype::kF32, row.data(), 3, Dtype::kF32), 0.0);
  const std::vector<float> zeros(3, 0.0f);
  EXPECT_EQ(EncodingError(Dtype::kF32, zeros.data(), 3, Dtype::kI8Block128), 0.0);
  const std::vector<float> bad = {1.0f, std::numeric_limits<float>::infinity()};
  EXPECT_FALSE(std::isfinite(EncodingError(Dtype::kF32, bad.data(), 2, Dtype::kI8Block128)));
  const std::vector<float> large = {1e6f, 1.0f};  // Beyond F16.
  EXPECT_FALSE(std::isfinite(EncodingError(Dtype::kF32, large.data(), 2, Dtype::kF16)));
}

TEST(TensorEncodeTest, LossyIsWhatNarrows) {
  EXPECT_FALSE(IsLossy(Dtype::kBF16, Dtype::kBF16));
  EXPECT_FALSE(IsLossy(Dtype::kBF16, Dtype::kF32));
  EXPECT_TRUE(IsLossy(Dtype::kBF16, Dtype::kF16));
  EXPECT_TRUE(IsLossy(Dtype::kF32, Dtype::kBF16));
  EXPECT_TRUE(IsLossy(Dtype::kBF16, Dtype::kI8Block128));
}

}  // namespace
}  // namespace expertmesh
