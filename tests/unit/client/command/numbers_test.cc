#include "client/cpp/command/numbers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::command {
namespace {

TEST(NumbersTest, SeparatesThousands) {
  EXPECT_EQ(WithThousands(0), "0");
  EXPECT_EQ(WithThousands(999), "999");
  EXPECT_EQ(WithThousands(1000), "1,000");
  EXPECT_EQ(WithThousands(671026419200), "671,026,419,200");
}

TEST(NumbersTest, ParsingKeepsTheOrder) {
  EXPECT_EQ(ParseNumbers("17,4,4294967295,4").value(),
            (std::vector<uint32_t>{17, 4, 4294967295u, 4}));
  for (const char* wrong : {"", "1,", "1,x", "-1", "4294967296", "1.5"}) {
    EXPECT_EQ(ParseNumbers(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
  EXPECT_THAT(ParseNumbers("1,x").status().message(), testing::HasSubstr("'x' in '1,x'"));
}

TEST(NumbersTest, SizesHaveUnits) {
  EXPECT_EQ(ParseBytes("0").value(), 0u);
  EXPECT_EQ(ParseBytes("800").value(), 800u);
  EXPECT_EQ(ParseBytes("64GiB").value(), uint64_t{64} << 30);
  EXPECT_EQ(ParseBytes("1.5 GB").value(), 1'500'000'000u);
  EXPECT_EQ(ParseBytes("2kB").value(), 2000u);
  for (const char* wrong :
       {"", "GiB", "-1GiB", "1 gib", "1XB", "1..5GB", "1e30TiB", "99999999TiB"}) {
    EXPECT_EQ(ParseBytes(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
  EXPECT_THAT(ParseBytes("1XB").status().message(), testing::HasSubstr("'1XB' is no size"));
}

TEST(NumbersTest, BytesAreShownInUnits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{3} << 40), "3 TiB");
}

TEST(NumbersTest, FactorsAreAboveZero) {
  EXPECT_EQ(ParseFactors("1,0.5").value(), (std::vector<double>{1, .5}));
  for (const char* wrong : {"", "0", "1,-2", "1,nan", "inf", "x"}) {
    EXPECT_EQ(ParseFactors(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

}  // namespace
}  // namespace expertmesh::command
