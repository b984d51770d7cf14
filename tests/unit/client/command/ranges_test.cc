#include "client/cpp/command/ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::command {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(RangesTest, FormatsRunsAsRanges) {
  EXPECT_EQ(FormatRanges({}), "none");
  EXPECT_EQ(FormatRanges({5}), "5");
  EXPECT_EQ(FormatRanges({0, 1}), "0-1");
  EXPECT_EQ(FormatRanges({0, 1, 2, 3, 7, 9, 10}), "0-3,7,9-10");
  EXPECT_EQ(FormatRanges({4294967294u, 4294967295u}), "4294967294-4294967295");
}

TEST(RangesTest, ParsesWhatItFormats) {
  EXPECT_THAT(*ParseRanges("0-3,7,9-10"), ElementsAre(0, 1, 2, 3, 7, 9, 10));
  EXPECT_THAT(*ParseRanges("5"), ElementsAre(5));
}

TEST(RangesTest, ParsingSortsAndDropsRepetitions) {
  EXPECT_THAT(*ParseRanges("4,0-2,1-2,4"), ElementsAre(0, 1, 2, 4));
}

TEST(RangesTest, RefusesWhatIsNoRange) {
  for (const char* text :
       {"", "x", "1,", "-3", "1-", "3-1", "1-2-3", "0-4294967295", "4294967296"}) {
    EXPECT_EQ(ParseRanges(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_THAT(ParseRanges("1,x").status().message(), HasSubstr("'x' in '1,x'"));
}

TEST(RangesTest, SeparatesThousands) {
  EXPECT_EQ(WithThousands(0), "0");
  EXPECT_EQ(WithThousands(999), "999");
  EXPECT_EQ(WithThousands(1000), "1,000");
  EXPECT_EQ(WithThousands(671026419200), "671,026,419,200");
}

TEST(ParseNumbersTest, KeepsTheOrder) {
  EXPECT_EQ(ParseNumbers("17,4,4294967295,4").value(),
            (std::vector<uint32_t>{17, 4, 4294967295u, 4}));
  for (const char* wrong : {"", "1,", "1,x", "-1", "4294967296", "1.5"}) {
    EXPECT_EQ(ParseNumbers(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

}  // namespace
}  // namespace expertmesh::command
