#include "client/cpp/command/placement_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace expertmesh::command {
namespace {

using testing::HasSubstr;

absl::StatusOr<client::PlacementChange> Read(const std::vector<std::string>& arguments) {
  const auto options = ParseOptions({"test", "", "", WithPlanning({})}, arguments);
  return options.ok() ? ReadPlanning(*options) : options.status();
}

TEST(PlacementOptionsTest, WhatIsNotGivenIsUnset) {
  const auto change = Read({});
  ASSERT_TRUE(change.ok()) << change.status();
  EXPECT_FALSE(change->automatic || change->interval || change->min_copies || change->max_copies ||
               change->hysteresis || change->byte_budget || change->min_tokens);
}

TEST(PlacementOptionsTest, WhatIsGivenIsTaken) {
  const auto change = Read({"--min-copies=2", "--max-copies", "4294967295", "--hysteresis=0.25",
                            "--byte-budget=1.5GiB", "--min-tokens=0"});
  ASSERT_TRUE(change.ok()) << change.status();
  EXPECT_EQ(change->min_copies, 2u);
  EXPECT_EQ(change->max_copies, 4294967295u);
  EXPECT_EQ(change->hysteresis, 0.25);
  EXPECT_EQ(change->byte_budget, uint64_t{3} << 29);
  EXPECT_EQ(change->min_tokens, 0u);
}

TEST(PlacementOptionsTest, ImpossibleValuesAreNamed) {
  for (const char* wrong : {"--min-copies=4294967296", "--max-copies=4294967296",
                            "--byte-budget=much", "--hysteresis=-1", "--min-tokens=x"}) {
    const absl::Status status = Read({wrong}).status();
    const std::string argument(wrong);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong;
    EXPECT_THAT(std::string(status.message()), HasSubstr(argument.substr(0, argument.find('='))));
    EXPECT_THAT(std::string(status.message()), HasSubstr(argument.substr(argument.find('=') + 1)));
  }
}

}  // namespace
}  // namespace expertmesh::command
