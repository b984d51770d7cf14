#include "common/wire/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace expertmesh {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

TEST(StatusTest, EveryCodeSurvivesBothWays) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    EXPECT_EQ(ToWire(status).code(), code);
    EXPECT_EQ(FromWire(ToWire(status)), status);
  }
}

TEST(StatusTest, ANumberThatIsNoCodeBecomesUnknownAndIsNamed) {
  v1::RequestStatus received;
  received.set_message("kept");
  for (const int code : {-1, 17, 1'000'000, std::numeric_limits<int>::min()}) {
    received.set_code(code);
    const absl::Status status = FromWire(received);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
    EXPECT_THAT(std::string(status.message()),
                AllOf(StartsWith("kept "), HasSubstr("code " + std::to_string(code) + " ")));
  }
  EXPECT_THAT(std::string(StatusFromPeer(99, "").message()), HasSubstr("code 99 "));
}

TEST(StatusTest, ACodeThatAbseilDoesNotKnowLeavesAsUnknown) {
  const v1::RequestStatus sent = ToWire(absl::Status(static_cast<absl::StatusCode>(99), "kept"));
  EXPECT_EQ(sent.code(), static_cast<int>(absl::StatusCode::kUnknown));
  EXPECT_EQ(sent.message(), "kept");
}

TEST(StatusTest, ALongMessageStaysWhole) {
  const absl::Status status = absl::UnavailableError(std::string(10'000, 'x'));
  EXPECT_EQ(ToWire(status).message().size(), 10'000u);
}

}  // namespace
}  // namespace expertmesh
