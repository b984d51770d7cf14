#include "common/net/grpc_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace expertmesh::net {
namespace {

TEST(GrpcStatusTest, EveryCodeSurvivesBothWays) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    EXPECT_EQ(static_cast<int>(ToGrpc(status).error_code()), code);
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
  }
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
