#include "common/base/ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh {
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
  EXPECT_THAT(*ParseRanges("0-3,7,9-10", 11), ElementsAre(0, 1, 2, 3, 7, 9, 10));
  EXPECT_THAT(*ParseRanges("5", 6), ElementsAre(5));
}

TEST(RangesTest, ParsingSortsAndDropsRepetitions) {
  EXPECT_THAT(*ParseRanges("4,0-2,1-2,4", 100), ElementsAre(0, 1, 2, 4));
}

TEST(RangesTest, RefusesWhatIsNoRange) {
  for (const char* text : {"", "x", "1,", "-3", "1-", "1-2-3", "1-4294967296", "4294967296"}) {
    const absl::Status status = ParseRanges(text, 100).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(status.message(), HasSubstr("is no number or range; give for example 0-31,40"));
  }
  EXPECT_THAT(ParseRanges("1,x", 100).status().message(), HasSubstr("'x' is no number"));
  EXPECT_THAT(ParseRanges("1,3-1", 100).status().message(),
              HasSubstr("range '3-1' ends before it begins"));
}

TEST(RangesTest, RefusesWhatIsNotBelowTheLimit) {
  EXPECT_THAT(*ParseRanges("9", 10), ElementsAre(9));
  for (const char* text : {"10", "0-10", "1,9-10", "0-4294967295"}) {
    const absl::Status status = ParseRanges(text, 10).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(status.message(), HasSubstr("does not exist; numbers go from 0 to 9")) << text;
  }
}

}  // namespace
}  // namespace expertmesh
