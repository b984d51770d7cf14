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

TEST(StatusTest, WhatAPeerSaysIsPrintableAndBounded) {
  v1::RequestStatus received;
  received.set_code(14);
  received.set_message("\x1b[2J" + std::string(5'000'000, 'x'));
  received.add_details()->set_type_url("kept");
  google::protobuf::Any& large = *received.add_details();
  large.set_type_url("too large");
  large.set_value(std::string(100'000, 'x'));
  received.add_details()->set_type_url("not\nprintable");
  for (int i = 0; i < 1000; ++i) {
    received.add_details()->set_type_url("one of many " + std::to_string(i));
  }
  const absl::Status status = FromWire(received);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), StartsWith("\\x1b[2Jxxx"));
  EXPECT_LT(status.message().size(), 1400u);
  EXPECT_TRUE(status.GetPayload("kept").has_value());
  EXPECT_FALSE(status.GetPayload("too large").has_value());
  int details = 0;
  status.ForEachPayload([&](absl::string_view, const absl::Cord&) { ++details; });
  EXPECT_LE(details, 16);
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
