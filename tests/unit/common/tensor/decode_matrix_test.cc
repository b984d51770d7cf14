// Values of the quantised types are those of MOE_SPEC 4 and 12.2 (MXFP4) and of the OCP FP8 format.
#include "common/tensor/decode_matrix.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

MatrixView F4Rows(const std::vector<uint8_t>& bytes, const std::vector<uint8_t>& scales,
                  size_t rows, size_t cols) {
  MatrixView view = MatrixView::RowMajor(bytes.data(), Dtype::kF4, rows, cols);
  view.scales = {scales.data(), Dtype::kF8E8M0, 1, 32, cols / 32};
  return view;
}

TEST(DecodeMatrix, Mxfp4GoldenBytes) {
  std::vector<uint8_t> bytes(16, 0);
  bytes[0] = 0x21;
  const auto first_two = [&](uint8_t byte, uint8_t scale) {
    bytes[0] = byte;
    std::vector<float> row(2);
    const std::vector<uint8_t> scales = {scale};
    DecodeRow(F4Rows(bytes, scales, 1, 32), 0, 0, 2, row.data());
    return row;
  };
  EXPECT_THAT(first_two(0x21, 127), ElementsAre(0.5f, 1.0f));
  EXPECT_THAT(first_two(0x21, 128), ElementsAre(1.0f, 2.0f));
  EXPECT_THAT(first_two(0xF8, 127), ElementsAre(0.0f, -6.0f));
  EXPECT_TRUE(std::signbit(first_two(0xF8, 127)[0]));
  EXPECT_THAT(first_two(0x7E, 0),
              ElementsAre(-4.0f * std::ldexp(1.0f, -127), 6.0f * std::ldexp(1.0f, -127)));
  EXPECT_TRUE(std::isnan(first_two(0x21, 255)[0]));
}

TEST(DecodeMatrix, EveryBlockOfARowHasItsScale) {
  std::vector<uint8_t> bytes(2 * 32, 0x22);  // Ones.
  const std::vector<uint8_t> scales = {127, 128, 129, 130};
  const MatrixView view = F4Rows(bytes, scales, 2, 64);
  std::vector<float> part(4);
  DecodeRow(view, 0, 30, 4, part.data());
  EXPECT_THAT(part, ElementsAre(1.0f, 1.0f, 2.0f, 2.0f));
  DecodeRow(view, 1, 31, 2, part.data());
  EXPECT_EQ(part[0], 4.0f);
  EXPECT_EQ(part[1], 8.0f);
  // Every second row, as in a fused tensor of turns.
  MatrixView odd = F4Rows(bytes, scales, 1, 64);
  odd.data += 32;
  odd.scales.data += 2;
  EXPECT_EQ(DecodeMatrix(odd)[0], 4.0f);
}

TEST(DecodeMatrix, EveryValueOfF8) {
  std::vector<uint8_t> bytes(256);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(i);
  }
  const std::vector<float> values =
      DecodeMatrix(MatrixView::RowMajor(bytes.data(), Dtype::kF8E4M3, 1, 256));
  EXPECT_EQ(values[0], 0.0f);
  EXPECT_EQ(values[1], std::ldexp(1.0f, -9));  // Smallest subnormal.
  EXPECT_EQ(values[7], 7 * std::ldexp(1.0f, -9));
  EXPECT_EQ(values[8], std::ldexp(1.0f, -6));  // Smallest normal.
  EXPECT_EQ(values[0x38], 1.0f);
  EXPECT_EQ(values[0x39], 1.125f);
  EXPECT_EQ(values[0x7E], 448.0f);
  EXPECT_TRUE(std::isnan(values[0x7F]));
  EXPECT_TRUE(std::isnan(values[0xFF]));
  for (size_t i = 1; i < 0x7F; ++i) {
    EXPECT_GT(values[i], values[i - 1]) << i;
    EXPECT_EQ(values[i + 0x80], -values[i]) << i;
  }
}

// Blocks of 2 x 3, cut at both edges.
TEST(DecodeMatrix, ScalesOfTwoDimensionalBlocks) {
  const std::vector<uint8_t> bytes(3 * 4, 0x40);  // Twos.
  const std::vector<float> scales = {1.0f, 10.0f, 100.0f, 1000.0f};
  MatrixView view = MatrixView::RowMajor(bytes.data(), Dtype::kF8E4M3, 3, 4);
  view.scales = {reinterpret_cast<const uint8_t*>(scales.data()), Dtype::kF32, 2, 3, 2};
  EXPECT_THAT(DecodeMatrix(view), ElementsAre(2, 2, 2, 20, 2, 2, 2, 20, 200, 200, 200, 2000));
}

// 1.5 and 1 + 2^-7 in bfloat16, 1.5 and 1 + 2^-10 in float16: the product is not rounded to them.
TEST(DecodeMatrix, ScalesOfSixteenBits) {
  const std::vector<uint8_t> bytes = {0x39, 0x39};  // 1.125
  const std::vector<uint16_t> brain = {0x3fc0, 0x3f81};
  const std::vector<uint16_t> half = {0x3e00, 0x3c01};
  MatrixView view = MatrixView::RowMajor(bytes.data(), Dtype::kF8E4M3, 1, 2);
  view.scales = {reinterpret_cast<const uint8_t*>(brain.data()), Dtype::kBF16, 1, 1, 2};
  EXPECT_THAT(DecodeMatrix(view), ElementsAre(1.6875f, 1.125f * (1 + 0x1p-7f)));
  view.scales = {reinterpret_cast<const uint8_t*>(half.data()), Dtype::kF16, 1, 1, 2};
  EXPECT_THAT(DecodeMatrix(view), ElementsAre(1.6875f, 1.125f * (1 + 0x1p-10f)));
}

TEST(DecodeMatrix, AnyStrides) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  MatrixView transposed = MatrixView::RowMajor(values.data(), Dtype::kF32, 2, 3);
  transposed.row_stride = 1;
  transposed.col_stride = 2;
  EXPECT_THAT(DecodeMatrix(transposed), ElementsAre(1, 3, 5, 2, 4, 6));
}

TEST(DecodeMatrix, WhatCannotBeReadIsNamed) {
  const std::vector<uint8_t> bytes(64);
  const auto error = [](const MatrixView& view) {
    const absl::Status status = CheckDecodable("the weight", view);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(error(MatrixView::RowMajor(bytes.data(), Dtype::kI8, 2, 2)),
              HasSubstr("the weight has type I8"));
  EXPECT_THAT(error(MatrixView::RowMajor(nullptr, Dtype::kF32, 2, 2)), HasSubstr("no data"));
  EXPECT_THAT(error(MatrixView::RowMajor(bytes.data(), Dtype::kF4, 2, 3)),
              HasSubstr("whole bytes"));
  MatrixView view = MatrixView::RowMajor(bytes.data(), Dtype::kF8E4M3, 2, 2);
  EXPECT_TRUE(CheckDecodable("the weight", view).ok());
  view.scales = {bytes.data(), Dtype::kI8, 1, 1, 2};
  EXPECT_THAT(error(view), HasSubstr("scales of type I8"));
}

}  // namespace
}  // namespace expertmesh
