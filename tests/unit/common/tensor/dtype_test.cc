#include "common/tensor/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/compare_rows.h"

namespace expertmesh {
namespace {

// The nearest value of a format with `mantissa` explicit bits and exponents down to `min_exponent`,
// by arithmetic on doubles and not by bits.
double NearestEven(double value, int mantissa, int min_exponent) {
  if (value == 0.0 || !std::isfinite(value)) {
    return value;
  }
  const int exponent = std::max(std::ilogb(value), min_exponent);
  const double unit = std::ldexp(1.0, exponent - mantissa);
  return std::nearbyint(value / unit) * unit;  // The default rounding mode is to even.
}

TEST(DtypeTest, EveryHalfPrecisionValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = FloatFromF16(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FloatFromF16(F16FromFloat(value))));
    } else {
      EXPECT_EQ(F16FromFloat(value), half) << value;
    }
    const float brain = FloatFromBF16(half);
    if (std::isnan(brain)) {
      EXPECT_TRUE(std::isnan(FloatFromBF16(BF16FromFloat(brain))));
    } else {
      EXPECT_EQ(BF16FromFloat(brain), half) << brain;
    }
  }
}

TEST(DtypeTest, RoundsToNearestEvenOverTheWholeRange) {
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isfinite(value)) {
      continue;
    }
    const double f16 = NearestEven(value, 10, -14);
    const double expected_f16 =
        std::abs(f16) > 65504.0 ? std::copysign(std::numeric_limits<double>::infinity(), f16) : f16;
    EXPECT_EQ(FloatFromF16(F16FromFloat(value)), expected_f16) << value;
    const float bf16 = static_cast<float>(NearestEven(value, 7, -126));
    EXPECT_EQ(FloatFromBF16(BF16FromFloat(value)), bf16) << value;
  }
}

TEST(DtypeTest, KeepsNaNInfinityAndTheSignOfZero) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isnan(FloatFromBF16(BF16FromFloat(nan))));
  EXPECT_TRUE(std::isnan(FloatFromF16(F16FromFloat(nan))));
  // A NaN whose payload is only in the bits that are cut off must not become an infinity.
  const float low_payload = std::bit_cast<float>(0x7f800001u);
  EXPECT_TRUE(std::isnan(FloatFromBF16(BF16FromFloat(low_payload))));
  EXPECT_TRUE(std::isnan(FloatFromF16(F16FromFloat(low_payload))));
  EXPECT_EQ(FloatFromBF16(BF16FromFloat(-infinity)), -infinity);
  EXPECT_EQ(FloatFromF16(F16FromFloat(infinity)), infinity);
  EXPECT_EQ(F16FromFloat(-0.0f), 0x8000);
  EXPECT_EQ(BF16FromFloat(-0.0f), 0x8000);
}

TEST(DtypeTest, ConvertsUnalignedRows) {
  const std::vector<float> values = {1.0f, -2.5f, 3.0e-8f, 1000.0f, 0.0f};
  std::vector<uint8_t> source(values.size() * 4 + 1);
  std::memcpy(source.data() + 1, values.data(), values.size() * 4);
  std::vector<uint8_t> target(values.size() * 2 + 1);
  ConvertElements(Dtype::kF32, source.data() + 1, Dtype::kBF16, target.data() + 1, values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, target.data() + 1 + 2 * i, 2);
    EXPECT_EQ(bits, BF16FromFloat(values[i]));
  }
}

TEST(DtypeTest, RowsAreConvertedLikeSingleValues) {
  std::mt19937 random(2);
  std::vector<float> values(10007);
  for (float& value : values) {
    value = std::bit_cast<float>(static_cast<uint32_t>(random()));
  }
  std::vector<uint16_t> f16(values.size());
  std::vector<uint16_t> bf16(values.size());
  ConvertElements(Dtype::kF32, values.data(), Dtype::kF16, f16.data(), values.size());
  ConvertElements(Dtype::kF32, values.data(), Dtype::kBF16, bf16.data(), values.size());
  std::vector<uint16_t> right_f16;
  std::vector<uint16_t> right_bf16;
  for (const float value : values) {
    right_f16.push_back(F16FromFloat(value));
    right_bf16.push_back(BF16FromFloat(value));
  }
  EXPECT_TRUE(SameBits(f16, right_f16, values.size()));
  EXPECT_TRUE(SameBits(bf16, right_bf16, values.size()));
}

// Around the widths of vectors, at addresses that fit none.
TEST(DtypeTest, AddsEveryElementAndNoMore) {
  for (const Dtype from : {Dtype::kF32, Dtype::kBF16, Dtype::kF16}) {
    for (const size_t count : {0, 1, 7, 8, 15, 16, 17, 63, 64, 65, 200}) {
      std::vector<float> source(count + 2), target(count + 2);
      for (size_t i = 0; i < source.size(); ++i) {
        source[i] = 0.25f * static_cast<float>(i + 1);  // Exact in every type.
        target[i] = static_cast<float>(100 * i);
      }
      std::vector<uint8_t> encoded(source.size() * BytesOf(from));
      ConvertElements(Dtype::kF32, source.data(), from, encoded.data(), source.size());
      AddElements(from, encoded.data() + BytesOf(from), count, target.data() + 1);
      std::vector<float> expected;
      for (size_t i = 0; i < target.size(); ++i) {
        const bool added = i >= 1 && i <= count;
        expected.push_back(static_cast<float>(100 * i) + (added ? source[i] : 0.0f));
      }
      EXPECT_TRUE(SameRows(target, expected, target.size())) << NameOf(from);
    }
  }
}

TEST(DtypeTest, FindsTheOneNonFiniteElement) {
  std::vector<float> values(100, 1.0f);
  EXPECT_FALSE(HasNonFinite(Dtype::kF32, values.data(), values.size()));
  values[99] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(HasNonFinite(Dtype::kF32, values.data(), values.size()));
  EXPECT_FALSE(HasNonFinite(Dtype::kF32, values.data(), 99));
  const std::vector<uint16_t> brain = {0x3f80, 0x7fc0};
  EXPECT_TRUE(HasNonFinite(Dtype::kBF16, brain.data(), 2));
  EXPECT_FALSE(HasNonFinite(Dtype::kBF16, brain.data(), 1));
  const std::vector<uint16_t> half = {0x7bff, 0xfc00};  // The largest finite value, and -inf.
  EXPECT_FALSE(HasNonFinite(Dtype::kF16, half.data(), 1));
  EXPECT_TRUE(HasNonFinite(Dtype::kF16, half.data(), 2));
}

}  // namespace
}  // namespace expertmesh
