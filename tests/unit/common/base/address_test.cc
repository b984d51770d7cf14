#include "common/base/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace expertmesh {
namespace {

TEST(AddressTest, SplitsAndJoins) {
  const absl::StatusOr<HostPort> name = SplitHostPort("node-1.mesh:7500");
  ASSERT_TRUE(name.ok());
  EXPECT_EQ(name->host, "node-1.mesh");
  EXPECT_EQ(name->port, "7500");
  EXPECT_EQ(JoinHostPort(name->host, name->port), "node-1.mesh:7500");
  const absl::StatusOr<HostPort> v6 = SplitHostPort("[::1]:0");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(JoinHostPort(v6->host, v6->port), "[::1]:0");
}

TEST(AddressTest, NonsenseIsNamed) {
  for (const std::string address : {"", "host", ":1", "::1:7", "[::1:7", "host:-1", "host:65536",
                                    "host:1x", "ho st:1", "a/b:1", "a,b:1"}) {
    const absl::Status status = SplitHostPort(address).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("\"" + address + "\""));
  }
}

TEST(AddressTest, ChecksWhatOneCanConnectTo) {
  EXPECT_TRUE(CheckAddress("127.0.0.1:65535").ok());
  EXPECT_TRUE(CheckAddress("unix:/tmp/socket").ok());
  EXPECT_FALSE(CheckAddress("unix:").ok());
  EXPECT_FALSE(CheckAddress("127.0.0.1:0").ok());
  EXPECT_FALSE(CheckAddress("127.0.0.1").ok());
}

}  // namespace
}  // namespace expertmesh
