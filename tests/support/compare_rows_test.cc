#include "tests/support/compare_rows.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"

namespace expertmesh {
namespace {

using testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(CompareRows, EqualArraysAreEqual) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  EXPECT_TRUE(SameRows(values, values, 3));
  EXPECT_TRUE(SameBits(values, values, 3));
  EXPECT_TRUE(RowsNear(values, values, 3, 0.0));
  EXPECT_TRUE(SameRows(std::vector<float>(), std::vector<float>(), 3));
  // Rows of different kinds and types can be compared.
  EXPECT_TRUE(SameRows(absl::MakeConstSpan(values).subspan(3), std::vector<double>{4, 5, 6}, 3));
  EXPECT_TRUE(SameBits(std::string("ab"), std::string("ab"), 2));
}

TEST(CompareRows, NamesTheFirstDifferenceAndTheLargest) {
  std::vector<float> expected(24, 0.5f);
  std::vector<float> actual = expected;
  actual[9] = 0.75f;
  actual[10] = 0.375f;
  actual[20] = -1.5f;
  for (const testing::AssertionResult& result :
       {SameRows(actual, expected, 4), SameBits(actual, expected, 4),
        RowsNear(actual, expected, 4, 0.1)}) {
    ASSERT_FALSE(result);
    const std::string message = result.message();
    EXPECT_THAT(message, HasSubstr("row 2, column 1 is the first to differ: 0.75"));
    EXPECT_THAT(message, HasSubstr("instead of 0.5"));
    EXPECT_THAT(message, HasSubstr("a difference of 0.25\n"));
    EXPECT_THAT(message, HasSubstr("2 of 6 rows and 3 of 24 values differ"));
    EXPECT_THAT(message, HasSubstr("by up to 2 in row 5, column 0"));
  }
  EXPECT_TRUE(RowsNear(actual, expected, 4, 2.0));
  EXPECT_THAT(RowsNear(actual, expected, 4, 0.3).message(), HasSubstr("instead of 0.5 within 0.3"));
  EXPECT_TRUE(RowsNear(actual, expected, 4, [](size_t i) { return i == 20 ? 2.0 : 0.25; }));
  EXPECT_FALSE(RowsNear(actual, expected, 4, [](size_t i) { return i == 20 ? 1.9 : 0.25; }));
}

TEST(CompareRows, ZerosAndValuesThatAreNotFinite) {
  const std::vector<float> zeros = {0.0f, -0.0f};
  const std::vector<float> turned = {0.0f, 0.0f};
  EXPECT_TRUE(SameRows(zeros, turned, 2));
  EXPECT_THAT(
      SameBits(zeros, turned, 2).message(),
      HasSubstr("column 1 is the first to differ: -0 (0x80000000) instead of 0 (0x00000000)"));

  const std::vector<float> nan = {1.0f, kNan};
  EXPECT_TRUE(SameBits(nan, nan, 2));
  EXPECT_FALSE(SameRows(nan, nan, 2));
  EXPECT_FALSE(RowsNear(nan, nan, 2, 1e30));
  EXPECT_THAT(SameRows(nan, turned, 1).message(), HasSubstr("by up to inf in row 1, column 0"));

  const std::vector<float> infinite = {INFINITY, -INFINITY};
  EXPECT_TRUE(RowsNear(infinite, infinite, 2, 0.0));
  EXPECT_FALSE(RowsNear(infinite, turned, 2, 1e30));
}

TEST(CompareRows, NeighbouringValuesDoNotLookTheSame) {
  const std::vector<float> values = {std::nextafter(1.0f, 2.0f)};
  EXPECT_THAT(SameRows(values, std::vector<float>{1.0f}, 1).message(),
              HasSubstr("1.00000012 instead of 1, a difference of 1.19209e-07"));
  const std::vector<uint16_t> halves = {0x3C01};
  EXPECT_THAT(SameBits(halves, std::vector<uint16_t>{0x3C00}, 1).message(),
              HasSubstr("15361 (0x3c01) instead of 15360 (0x3c00)"));
  EXPECT_THAT(SameBits(std::string("a"), std::string("b"), 1).message(),
              HasSubstr("97 (0x61) instead of 98 (0x62)"));
}

TEST(CompareRows, RelativeErrorsOfRows) {
  const std::vector<double> expected(24, 0.5);
  std::vector<float> actual(24, 0.5f);
  actual[9] = 0.75f;
  actual[10] = 0.375f;
  actual[20] = -1.5f;
  EXPECT_TRUE(RowsClose(actual, expected, 4, 2.0));
  const std::string message = RowsClose(actual, expected, 4, 0.1).message();
  EXPECT_THAT(message,
              HasSubstr("row 2 is the first too far off: relative error 0.279508, at most "
                        "0.1; most of it in column 1, 0.75 instead of 0.5, a difference of "
                        "0.25\n2 of 6 rows are too far off, by up to 2 in row 5"));
  actual[9] = kNan;
  EXPECT_THAT(RowsClose(actual, expected, 4, 1e9).message(), HasSubstr("column 1, nan instead"));
  EXPECT_FALSE(RowsClose(actual, expected, 5, 1e9));
  EXPECT_FALSE(RowsClose(std::vector<float>{0.25f}, std::vector<float>{0.0f}, 1, 0.2));
}

TEST(CompareRows, SizesThatDoNotFit) {
  const std::vector<float> values(6);
  EXPECT_THAT(SameRows(values, std::vector<float>(5), 3).message(),
              HasSubstr("6 values where 5 are expected, in rows of 3"));
  EXPECT_FALSE(SameBits(values, values, 4));
  EXPECT_FALSE(SameBits(values, values, 0));
}

// As it is printed, with GoogleTest's own lines.
TEST(CompareRows, AFailureTakesFewLines) {
  testing::TestPartResultArray failures;
  {
    const testing::ScopedFakeTestPartResultReporter reporter(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    EXPECT_TRUE(SameBits(std::vector<float>(100000, 1.0f), std::vector<float>(100000), 100)) << "x";
  }
  ASSERT_EQ(failures.size(), 1);
  const std::string said = failures.GetTestPartResult(0).message();
  EXPECT_THAT(said, HasSubstr("1000 of 1000 rows"));
  EXPECT_LT(std::vector<std::string>(absl::StrSplit(said, '\n')).size(), 10u) << said;
  EXPECT_LT(said.size(), 600u) << said;
}

}  // namespace
}  // namespace expertmesh
