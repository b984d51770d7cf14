#include "common/base/usage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace expertmesh {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(UsageTest, HelpBeginsWithTheUsageAndListsTheFlagsOfMain) {
  for (const char* asked : {"--help", "-h", "-help", "--helpshort"}) {
    const std::optional<std::string> help = HelpAskedFor("what it does", {"--x", asked});
    ASSERT_TRUE(help.has_value()) << asked;
    EXPECT_THAT(*help,
                testing::StartsWith("what it does\n\n  --test-rows (default: 7)\n      Rows"));
    EXPECT_THAT(*help, AllOf(HasSubstr("  --test-strict (default: false)\n"),
                             Not(HasSubstr("--flagfile")), Not(HasSubstr("No flag"))));
  }
}

TEST(UsageTest, HelpfullListsAllAndATextThoseThatHaveIt) {
  EXPECT_THAT(*HelpAskedFor("", {"--helpfull"}),
              AllOf(HasSubstr("--test-rows"), HasSubstr("--flagfile")));
  for (const char* asked : {"--help=rows", "--help=test_rows", "--help=test-rows", "--help=ROWS"}) {
    EXPECT_THAT(*HelpAskedFor("", {asked}),
                AllOf(HasSubstr("--test-rows"), Not(HasSubstr("--test-strict"))))
        << asked;
  }
  EXPECT_THAT(*HelpAskedFor("", {"--help=nowhere"}), HasSubstr("No flag has 'nowhere'"));
  EXPECT_EQ(HelpAskedFor("", {"--test-rows=3", "--", "--help"}), std::nullopt);
}

TEST(UsageTest, AFlagThatThereIsNotIsNamedWithTheOneThatWasMeant) {
  EXPECT_EQ(UnknownFlag({"--test-row=3"}),
            "there is no flag --test-row; did you mean --test-rows? --help lists all");
  EXPECT_EQ(UnknownFlag({"--test_str"}),
            "there is no flag --test-str; did you mean --test-strict? --help lists all");
  EXPECT_EQ(UnknownFlag({"--elsewhere"}), "there is no flag --elsewhere; --help lists all");
  EXPECT_THAT(UnknownFlag({"--notest-rows"}), HasSubstr("no flag --notest-rows"));
}

TEST(UsageTest, FlagsThatThereAreStay) {
  EXPECT_EQ(UnknownFlag({"--test_rows=3", "--test-rows", "--5", "--notest-strict", "--test-strict",
                         "word", "-x", "--", "--elsewhere"}),
            "");
}

}  // namespace
}  // namespace expertmesh
