#include "common/net/grpc_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/wire/error_reason.h"

namespace expertmesh::net {
namespace {

TEST(GrpcStatusTest, EveryCodeSurvivesBothWays) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    EXPECT_EQ(static_cast<int>(ToGrpc(status).error_code()), code);
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
  }
}

TEST(GrpcStatusTest, AReasonSurvivesBothWays) {
  const absl::Status error =
      ErrorOf(v1::ERROR_REASON_EXPERTS_MISSING, "experts 3, 5 are nowhere", {{"layer", "7"}});
  EXPECT_EQ(FromGrpc(ToGrpc(error)), error);  // Details included.
  EXPECT_EQ(ReasonOf(FromGrpc(ToGrpc(error))), v1::ERROR_REASON_EXPERTS_MISSING);
}

TEST(GrpcStatusTest, WhatAPeerSaysIsPrintableAndBounded) {
  const std::string text = "two\nlines" + std::string(100'000, 'x');
  for (const auto code : {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::RESOURCE_EXHAUSTED}) {
    const absl::Status status = FromGrpc(grpc::Status(code, text + " larger than max"));
    EXPECT_THAT(std::string(status.message()), testing::StartsWith("two\\nlinesxxx"));
    EXPECT_LT(status.message().size(), 1400u);
  }
}

TEST(GrpcStatusTest, DetailsThatAreNoneAreLeftOut) {
  const grpc::Status broken(grpc::StatusCode::UNAVAILABLE, "kept", "\xff\xff");
  EXPECT_EQ(FromGrpc(broken), absl::UnavailableError("kept"));
}

TEST(GrpcStatusTest, GrpcsOwnRefusalOfALargeMessageHasItsReason) {
  const grpc::Status refused(grpc::StatusCode::RESOURCE_EXHAUSTED,
                             "Received message larger than max (5 vs. 4)");
  EXPECT_EQ(ReasonOf(FromGrpc(refused)), v1::ERROR_REASON_MESSAGE_TOO_LARGE);
  EXPECT_EQ(ReasonOf(FromGrpc(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full"))),
            v1::ERROR_REASON_UNSPECIFIED);
}

TEST(GrpcStatusTest, DetailsFitIntoTrailers) {
  std::string everything = "x";  // Characters of two bytes, cut anywhere.
  while (everything.size() < 100'000) {
    everything += "ü";
  }
  const absl::Status error = WithFieldViolation(
      ErrorOf(v1::ERROR_REASON_INVALID_FIELD, everything, {{"a", everything}, {"b", everything}}));
  const grpc::Status sent = ToGrpc(error);
  EXPECT_LE(3 * sent.error_message().size() + sent.error_details().size() * 4 / 3, size_t{7168});
  EXPECT_EQ(ReasonOf(FromGrpc(sent)), v1::ERROR_REASON_INVALID_FIELD);
}

TEST(GrpcStatusTest, StrangeCodesBecomeUnknown) {
  // 30 has as many bits as the codes that there are: more would be undefined within gRPC's header.
  const absl::Status status = FromGrpc(grpc::Status(static_cast<grpc::StatusCode>(30), "kept"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::StartsWith("kept"), testing::HasSubstr("30")));
  EXPECT_EQ(ToGrpc(absl::Status(static_cast<absl::StatusCode>(99), "kept")).error_code(),
            grpc::StatusCode::UNKNOWN);
}

TEST(GrpcStatusTest, TrailerMessageIsCut) {
  const absl::Status status = absl::UnavailableError(std::string(10'000, 'x'));
  EXPECT_LT(ToGrpc(status).error_message().size(), 2100u);
}

}  // namespace
}  // namespace expertmesh::net
