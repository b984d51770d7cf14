#include "common/tensor/int8_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Row {
  std::vector<int8_t> integers;
  std::vector<float> scales;
};

Row Quantised(const std::vector<float>& values) {
  // Canaries behind both, so that a write past the end shows.
  Row row{std::vector<int8_t>(values.size() + 1, 99),
          std::vector<float>(Int8Blocks(values.size()) + 1, 99.0f)};
  QuantiseRow(Dtype::kF32, values.data(), values.size(), row.integers.data(), row.scales.data());
  EXPECT_EQ(row.integers.back(), 99);
  EXPECT_EQ(row.scales.back(), 99.0f);
  row.integers.pop_back();
  row.scales.pop_back();
  return row;
}

std::vector<float> Decoded(const Row& row) {
  std::vector<float> values(row.integers.size());
  for (size_t begin = 0; begin < values.size(); begin += kInt8Block) {
    DequantiseBlock(row.integers.data() + begin, row.scales[begin / kInt8Block],
                    std::min(kInt8Block, values.size() - begin), Dtype::kF32,
                    values.data() + begin);
  }
  return values;
}

// By double arithmetic and the C library's rounding, one value at a time.
Row Oracle(const std::vector<float>& values) {
  Row row{std::vector<int8_t>(values.size()), {}};
  for (size_t begin = 0; begin < values.size(); begin += 128) {
    const size_t end = std::min(begin + 128, values.size());
    double largest = 0.0;
    for (size_t i = begin; i < end; ++i) {
      largest = std::fmax(largest, std::fabs(values[i]));
    }
    const float scale = static_cast<float>(largest / 127.0);
    row.scales.push_back(scale);
    for (size_t i = begin; i < end && scale > 0; ++i) {
      row.integers[i] = static_cast<int8_t>(std::lrint(static_cast<double>(values[i]) / scale));
    }
  }
  return row;
}

TEST(Int8BlocksTest, BlocksOfARow) {
  EXPECT_EQ(Int8Blocks(0), 0u);
  EXPECT_EQ(Int8Blocks(1), 1u);
  EXPECT_EQ(Int8Blocks(128), 1u);
  EXPECT_EQ(Int8Blocks(129), 2u);
  EXPECT_EQ(Int8Blocks(std::numeric_limits<uint64_t>::max()), uint64_t{1} << 57);
}

TEST(Int8BlocksTest, IsWhatTheOracleSaysForEveryLength) {
  std::mt19937 random(1);
  for (size_t count = 1; count <= 400; ++count) {
    const std::vector<float> values =
        NormalValues(count, random, std::ldexp(1.0f, static_cast<int>(count % 60) - 30));
    const Row found = Quantised(values);
    const Row expected = Oracle(values);
    EXPECT_TRUE(SameRows(found.scales, expected.scales, 1)) << count;
    // The quotient is a float32 here and a double there: within 127 * 2^-24 of a tie they may part.
    const auto bound = [&](size_t i) {
      const double quotient = std::fabs(values[i] / double{expected.scales[i / 128]});
      return std::fabs(quotient - std::floor(quotient) - 0.5) < 1e-5 ? 1.0 : 0.0;
    };
    EXPECT_TRUE(RowsNear(found.integers, expected.integers, count, bound));
  }
}

TEST(Int8BlocksTest, ChangesAValueByHalfItsScaleAtMost) {
  std::mt19937 random(2);
  for (int round = 0; round < 100; ++round) {
    const std::vector<float> values = NormalValues(300, random, 3.0f);
    const Row row = Quantised(values);
    const std::vector<float> decoded = Decoded(row);
    // And the rounding of quotient and product, 2^-24 of at most 127 scales each.
    const auto bound = [&](size_t i) { return row.scales[i / 128] * (0.5f + 2e-5f); };
    EXPECT_TRUE(RowsNear(decoded, values, 300, bound));
  }
}

TEST(Int8BlocksTest, TiesGoToTheEvenInteger) {
  const Row row = Quantised({127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 3.49f, -127.0f});
  EXPECT_EQ(row.scales, std::vector<float>{1.0f});
  EXPECT_EQ(row.integers, (std::vector<int8_t>{127, 0, 2, 2, 0, -2, -2, 3, -127}));
}

TEST(Int8BlocksTest, EachBlockHasItsOwnScaleAndZerosHaveNone) {
  std::vector<float> values(300, 0.0f);
  values[5] = 254.0f;
  values[6] = -2.0f;
  values[299] = -12.7f;  // In the last block, of 44 values.
  const Row row = Quantised(values);
  EXPECT_EQ(row.scales, (std::vector<float>{2.0f, 0.0f, 12.7f / 127.0f}));
  EXPECT_EQ(row.integers[5], 127);
  EXPECT_EQ(row.integers[6], -1);
  EXPECT_EQ(row.integers[299], -127);
  const std::vector<float> decoded = Decoded(row);
  const size_t zeros = 299 - 128;
  EXPECT_TRUE(SameRows(absl::MakeConstSpan(decoded).subspan(128, zeros),
                       std::vector<float>(zeros, 0.0f), zeros));
}

TEST(Int8BlocksTest, WhatIsNotFiniteMakesItsBlockNaNAndNoOther) {
  for (const float bad : {kNaN, -kNaN, kInfinity, -kInfinity}) {
    std::vector<float> values(3 * 128, 1.0f);
    values[128 + 77] = bad;
    const Row row = Quantised(values);
    const std::vector<float> decoded = Decoded(row);
    std::vector<uint8_t> nan, second_block;
    for (size_t i = 0; i < values.size(); ++i) {
      nan.push_back(std::isnan(decoded[i]));
      second_block.push_back(i / 128 == 1);
    }
    EXPECT_TRUE(SameRows(nan, second_block, 128)) << bad;
    EXPECT_EQ(row.integers[130], 0);
  }
}

TEST(Int8BlocksTest, TheEndsOfTheRange) {
  const float largest = std::numeric_limits<float>::max();
  std::vector<float> decoded = Decoded(Quantised({largest, -largest, largest / 2}));
  EXPECT_NEAR(decoded[0] / largest, 1.0f, 1e-6f);
  EXPECT_NEAR(decoded[1] / largest, -1.0f, 1e-6f);
  EXPECT_TRUE(std::isfinite(decoded[2]));
  // Scales below the smallest float32: small stays small.
  const float smallest = std::numeric_limits<float>::denorm_min();
  for (const float value : {smallest, 100.0f * smallest, 190.0f * smallest, 1e-40f}) {
    decoded = Decoded(Quantised({value, -value, 0.0f}));
    EXPECT_LE(std::fabs(decoded[0]), 1.5f * value);
    EXPECT_EQ(decoded[1], -decoded[0]);
    EXPECT_EQ(decoded[2], 0.0f);
  }
}

TEST(Int8BlocksTest, EveryActivationTypeOnBothSides) {
  std::mt19937 random(3);
  const std::vector<float> values = NormalValues(200, random, 1.0f);
  for (const Dtype dtype : {Dtype::kBF16, Dtype::kF16}) {
    std::vector<uint16_t> halves(values.size());
    ConvertElements(Dtype::kF32, values.data(), dtype, halves.data(), values.size());
    std::vector<float> widened(values.size());
    ConvertElements(dtype, halves.data(), Dtype::kF32, widened.data(), values.size());
    const Row expected = Quantised(widened);
    Row row{std::vector<int8_t>(values.size()), std::vector<float>(2)};
    QuantiseRow(dtype, halves.data(), values.size(), row.integers.data(), row.scales.data());
    EXPECT_TRUE(SameRows(row.integers, expected.integers, values.size()));
    EXPECT_TRUE(SameRows(row.scales, expected.scales, 1));

    const std::vector<float> decoded = Decoded(row);
    std::vector<uint16_t> narrow(kInt8Block);
    DequantiseBlock(row.integers.data(), row.scales[0], kInt8Block, dtype, narrow.data());
    std::vector<uint16_t> rounded;
    for (size_t i = 0; i < kInt8Block; ++i) {
      rounded.push_back(dtype == Dtype::kBF16 ? BF16FromFloat(decoded[i])
                                              : F16FromFloat(decoded[i]));
    }
    EXPECT_TRUE(SameRows(narrow, rounded, kInt8Block)) << NameOf(dtype);
  }
}

}  // namespace
}  // namespace expertmesh
