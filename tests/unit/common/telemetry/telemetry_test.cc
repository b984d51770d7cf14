#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "common/telemetry/logging.h"
#include "common/telemetry/metrics.h"

namespace expertmesh::telemetry {
namespace {

using testing::HasSubstr;

// A connection to this port of loopback on which `text` was sent.
int Connect(int port, const std::string& text) {
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(write(connection, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  return connection;
}

// What the server at this port answers to GET /metrics.
std::string Scrape(int port) {
  const int connection = Connect(port, "GET /metrics HTTP/1.0\r\n\r\n");
  std::string answer;
  char buffer[4096];
  for (ssize_t count = 0; (count = read(connection, buffer, sizeof(buffer))) > 0;) {
    answer.append(buffer, static_cast<size_t>(count));
  }
  close(connection);
  return answer;
}

TEST(MetricsServerTest, ServesTheRegistryAndTheProcess) {
  auto registry = std::make_shared<prometheus::Registry>();
  RegisterProcessMetrics("test", {"1.2.3", "0123abcd", "Release"}, *registry);
  const auto server = MetricsServer::Start("127.0.0.1:0", registry);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string answer = Scrape((*server)->port());
  EXPECT_THAT(answer, HasSubstr("expertmesh_build_info{build_type=\"Release\",commit=\"0123abcd\","
                                "process=\"test\",version=\"1.2.3\"} 1"));
  EXPECT_THAT(answer, HasSubstr("expertmesh_process_resident_bytes "));
}

TEST(MetricsServerTest, ManyWhoAreSlowBlockNoOther) {
  auto registry = std::make_shared<prometheus::Registry>();
  const auto server = MetricsServer::Start("127.0.0.1:0", registry);
  ASSERT_TRUE(server.ok()) << server.status();
  std::vector<int> slow;
  for (int i = 0; i < 60; ++i) {
    slow.push_back(Connect((*server)->port(), i % 2 == 0 ? "" : "GET /met"));
  }
  EXPECT_THAT(Scrape((*server)->port()), HasSubstr("expertmesh_process_resident_bytes "));
  char none = 0;
  // They are let go.
  EXPECT_EQ(recv(slow.front(), &none, 1, 0), 0);
  for (const int connection : slow) {
    close(connection);
  }
}

TEST(MetricsServerTest, APortInUseIsAnErrorThatNamesTheAddress) {
  auto registry = std::make_shared<prometheus::Registry>();
  const auto first = MetricsServer::Start("127.0.0.1:0", registry);
  ASSERT_TRUE(first.ok());
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  const auto second = MetricsServer::Start(address, registry);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
}

TEST(MetricsServerTest, AnAddressThatMakesNoSenseIsRefused) {
  for (const char* address :
       {"", "9464", ":9464", "localhost:", "localhost:x", "localhost:70000"}) {
    EXPECT_EQ(
        MetricsServer::Start(address, std::make_shared<prometheus::Registry>()).status().code(),
        absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST(LoggingTest, KnowsItsLevels) {
  EXPECT_TRUE(InitLogging("test", "warning").ok());
  EXPECT_TRUE(InitLogging("test", "off").ok());
  const absl::Status status = InitLogging("test", "loud");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("loud"));
}

TEST(BucketsTest, AreAscending) {
  for (const auto& buckets : {DurationBuckets(), RowBuckets()}) {
    EXPECT_TRUE(std::is_sorted(buckets.begin(), buckets.end()));
  }
}

}  // namespace
}  // namespace expertmesh::telemetry
