#include "common/net/grpc_status.h"

#include <gtest/gtest.h>

#include <string>

namespace expertmesh::net {
namespace {

TEST(GrpcStatusTest, EveryCodeSurvivesBothWays) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    EXPECT_EQ(static_cast<int>(ToGrpc(status).error_code()), code);
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
    EXPECT_EQ(ToProto(status).code(), code);
    EXPECT_EQ(FromProto(ToProto(status)), status);
  }
}

TEST(GrpcStatusTest, StrangeCodesBecomeUnknown) {
  v1::Status proto;
  for (const int code : {-1, 17, 1'000'000}) {
    proto.set_code(code);
    proto.set_message("kept");
    EXPECT_EQ(FromProto(proto), absl::UnknownError("kept"));
  }
  EXPECT_EQ(ToGrpc(absl::Status(static_cast<absl::StatusCode>(99), "kept")).error_code(),
            grpc::StatusCode::UNKNOWN);
}

TEST(GrpcStatusTest, TrailerMessageIsCutAndMessageOnStreamIsNot) {
  const absl::Status status = absl::UnavailableError(std::string(10'000, 'x'));
  EXPECT_LT(ToGrpc(status).error_message().size(), 2100u);
  EXPECT_EQ(ToProto(status).message().size(), 10'000u);
}

}  // namespace
}  // namespace expertmesh::net
