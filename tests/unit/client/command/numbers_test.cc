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

}  // namespace
}  // namespace expertmesh::command
