// DecodeTile, slices and stored sizes over every storage of stored_matrix.h, whose values are told
// by the formats' definitions.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "common/tensor/decode_kernels.h"
#include "common/tensor/decode_matrix.h"
#include "common/tensor/matrix_slice.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/tensor/stored_matrix.h"

namespace expertmesh {
namespace {

std::vector<Storage> AllStorages() {
  std::vector<Storage> all;
  for (const Dtype type : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
    all.push_back(Storage::Plain(type));
    all.push_back(Storage::Plain(type).Transposed(2));
    all.push_back(Storage::Plain(type).Transposed(1).InTurns());
  }
  for (const Dtype scales : {Dtype::kF32, Dtype::kBF16, Dtype::kF16, Dtype::kF8E8M0}) {
    all.push_back(Storage::F8(scales));
    all.push_back(Storage::F8(scales).InTurns());
    all.push_back(Storage::F8(scales).Transposed(7));
  }
  all.push_back(Storage::F4());
  all.push_back(Storage::F4().InTurns());
  return all;
}

// Rows [row, row + rows), columns [col, col + cols) of `expected`, [?, stride], against the tile.
void ExpectTile(const MatrixView& view, size_t row, size_t rows, size_t col, size_t cols,
                const std::vector<float>& expected, size_t expected_stride) {
  const size_t stride = cols + 3;
  std::vector<float> f32(rows * stride, -1.0f);
  std::vector<uint16_t> bf16(rows * stride, 0x1234);
  DecodeTile(view, row, rows, col, cols, Dtype::kF32, f32.data(), stride);
  DecodeTile(view, row, rows, col, cols, Dtype::kBF16, bf16.data(), stride);
  // What lies between rows stays.
  std::vector<float> right_f32(rows * stride, -1.0f);
  std::vector<uint16_t> right_bf16(rows * stride, 0x1234);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) {
      right_f32[r * stride + c] = expected[(row + r) * expected_stride + col + c];
      right_bf16[r * stride + c] = BF16FromFloat(right_f32[r * stride + c]);
    }
  }
  SCOPED_TRACE(testing::Message() << "rows from " << row << ", " << cols << " columns from "
                                  << col);
  EXPECT_TRUE(SameBits(f32, right_f32, stride));
  EXPECT_TRUE(SameBits(bf16, right_bf16, stride));
}

TEST(DecodeTile, EveryStorageAndPart) {
  std::mt19937 random(5);
  for (const Storage& storage : AllStorages()) {
    SCOPED_TRACE(testing::Message() << storage);
    const StoredMatrix matrix(random, 150, 301, 1.0f, storage);
    const MatrixView view = matrix.view();
    ASSERT_TRUE(CheckDecodable("it", view).ok());
    EXPECT_TRUE(SameRows(DecodeMatrix(view), matrix.values, 301));
    ExpectTile(view, 0, 150, 0, 301, matrix.values, 301);
    ExpectTile(view, 127, 2, 127, 130, matrix.values, 301);
    ExpectTile(view, 149, 1, 300, 1, matrix.values, 301);
    ExpectTile(view, 3, 33, 31, 34, matrix.values, 301);
    ExpectTile(view, 3, 0, 31, 0, matrix.values, 301);
  }
}

TEST(DecodeTile, SlicesThatCutBlocks) {
  std::mt19937 random(6);
  for (const Storage& storage : AllStorages()) {
    SCOPED_TRACE(testing::Message() << storage);
    const StoredMatrix matrix(random, 280, 140, 1.0f, storage);
    // A slice of a slice: both cut the blocks of 128, and those of 32.
    const MatrixView rows = RowsOf(RowsOf(matrix.view(), 100, 170), 50, 100);
    const MatrixView part = ColumnsOf(ColumnsOf(rows, 18, 120), 20, 97);
    ASSERT_EQ(part.rows, 100u);
    ASSERT_EQ(part.cols, 97u);
    std::vector<float> expected;
    for (size_t r = 150; r < 250; ++r) {
      for (size_t c = 38; c < 135; ++c) {
        expected.push_back(matrix.values[r * 140 + c]);
      }
    }
    EXPECT_TRUE(SameRows(DecodeMatrix(part), expected, 97));
    ExpectTile(part, 5, 60, 7, 80, expected, 97);
  }
}

TEST(MatrixSlice, StoredBytesCountValuesAndScales) {
  std::mt19937 random(7);
  const StoredMatrix bf16(random, 30, 50, 1.0f, Storage::Plain(Dtype::kBF16).Transposed(9));
  EXPECT_EQ(StoredBytes(bf16.view()), 30u * 50 * 2);
  const StoredMatrix f8(random, 130, 256, 1.0f, Storage::F8(Dtype::kF32));
  EXPECT_EQ(StoredBytes(f8.view()), 130u * 256 + 2 * 2 * 4);
  EXPECT_EQ(StoredBytes(RowsOf(f8.view(), 100, 28)), 28u * 256 + 1 * 2 * 4);
  EXPECT_EQ(StoredBytes(RowsOf(f8.view(), 100, 29)), 29u * 256 + 2 * 2 * 4);
  const StoredMatrix f4(random, 6, 70, 1.0f, Storage::F4().InTurns());
  EXPECT_EQ(StoredBytes(f4.view()), 6u * 35 + 6 * 3);
  EXPECT_EQ(StoredBytes(ColumnsOf(f4.view(), 30, 4)), 6u * 2 + 6 * 2);
  EXPECT_EQ(StoredBytes(MatrixView()), 0u);
}

TEST(DecodeKernels, EveryInstructionSetGivesTheSameBits) {
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 3 * 256; ++i) {
    bytes.push_back(static_cast<uint8_t>(i * 37));
  }
  const DecodeKernels& first = *AllDecodeKernels().front();
  for (const DecodeKernels* kernels : AllDecodeKernels()) {
    for (const size_t count : {1, 31, 128, 500}) {
      std::vector<float> expected(count), actual(count);
      first.f8_to_f32(bytes.data(), count, 0.37f, expected.data());
      kernels->f8_to_f32(bytes.data(), count, 0.37f, actual.data());
      EXPECT_TRUE(SameBits(actual, expected, count));
      std::vector<uint16_t> expected16(count), actual16(count);
      first.f8_to_bf16(bytes.data(), count, 0.37f, expected16.data());
      kernels->f8_to_bf16(bytes.data(), count, 0.37f, actual16.data());
      EXPECT_TRUE(SameBits(actual16, expected16, count));
    }
    const std::vector<float> scales = {0.37f, 2.0f, std::ldexp(1.0f, -127), 1e30f};
    std::vector<float> expected(4 * kF4Block), actual(4 * kF4Block);
    first.f4_to_f32(bytes.data(), 4, scales.data(), expected.data());
    kernels->f4_to_f32(bytes.data(), 4, scales.data(), actual.data());
    EXPECT_TRUE(SameBits(actual, expected, kF4Block));
    std::vector<uint16_t> expected16(4 * kF4Block), actual16(4 * kF4Block);
    first.f4_to_bf16(bytes.data(), 4, scales.data(), expected16.data());
    kernels->f4_to_bf16(bytes.data(), 4, scales.data(), actual16.data());
    EXPECT_TRUE(SameBits(actual16, expected16, kF4Block));
  }
}

}  // namespace
}  // namespace expertmesh
