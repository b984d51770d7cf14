#include "common/net/connection_table.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <unistd.h>

#include <string>

#include "common/base/connection_counts.h"

namespace expertmesh::net {
namespace {

sockaddr_storage V4(const char* host, int port) {
  sockaddr_storage address = {};
  auto& v4 = reinterpret_cast<sockaddr_in&>(address);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(inet_pton(AF_INET, host, &v4.sin_addr), 1);
  return address;
}

sockaddr_storage V6(const char* host, int port) {
  sockaddr_storage address = {};
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(inet_pton(AF_INET6, host, &v6.sin6_addr), 1);
  return address;
}

// Both ends of a TCP connection.
class Connection {
 public:
  Connection() {
    const int listening = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_storage address = V4("127.0.0.1", 0);
    socklen_t size = sizeof(sockaddr_in);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(listening, any, size), 0);
    EXPECT_EQ(listen(listening, 1), 0);
    EXPECT_EQ(getsockname(listening, any, &size), 0);
    client_ = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(connect(client_, any, size), 0);
    server_ = accept(listening, nullptr, nullptr);
    EXPECT_GE(server_, 0);
    close(listening);
  }
  ~Connection() {
    Close();
    close(client_);
  }
  void Close() {
    if (server_ >= 0) {
      close(server_);
      server_ = -1;
    }
  }
  int server() const { return server_; }
  void Transfer(size_t count) {
    std::string bytes(count, 'x');
    EXPECT_EQ(write(client_, bytes.data(), count), static_cast<ssize_t>(count));
    EXPECT_EQ(recv(server_, bytes.data(), count, MSG_WAITALL), static_cast<ssize_t>(count));
  }
  bool IsEnded() const {
    char byte = 0;
    return recv(server_, &byte, 1, MSG_DONTWAIT) == 0;
  }

 private:
  int client_ = -1;
  int server_ = -1;
};

TEST(PeerNameTest, IsWrittenAsGrpcDoes) {
  EXPECT_EQ(PeerName(V4("10.0.0.7", 80)), "ipv4:10.0.0.7:80");
  EXPECT_EQ(PeerName(V6("::1", 80)), "ipv6:%5B::1%5D:80");
  EXPECT_EQ(PeerName(V6("::ffff:10.0.0.7", 80)), "ipv4:10.0.0.7:80");
  sockaddr_storage link_local = V6("fe80::1", 80);
  reinterpret_cast<sockaddr_in6&>(link_local).sin6_scope_id = 2;
  EXPECT_EQ(PeerName(link_local), "ipv6:%5Bfe80::1%252%5D:80");
  EXPECT_EQ(PeerName({}), "");
}

TEST(ConnectionTableTest, KnowsWhatIsClosedAndWhatHasItsNumberNow) {
  const int64_t before = connection_counts.open;
  {
    ConnectionTable table;
    Connection first;
    Connection second;
    table.Add(first.server(), V4("10.0.0.1", 1));
    table.Add(second.server(), V4("10.0.0.2", 2));
    EXPECT_EQ(table.Sweep(), 2u);
    EXPECT_EQ(connection_counts.open, before + 2);
    const int number = first.server();
    const Connection third;
    first.Close();
    ASSERT_EQ(dup2(third.server(), number), number);
    EXPECT_EQ(table.size(), 2u);
    EXPECT_FALSE(table.End("ipv4:10.0.0.1:1"));
    EXPECT_FALSE(third.IsEnded());
    EXPECT_EQ(table.Sweep(), 1u);
    close(number);
  }
  EXPECT_EQ(connection_counts.open, before);
}

TEST(ConnectionTableTest, EndsTheOneThatIsNamed) {
  ConnectionTable table;
  const Connection first;
  const Connection second;
  table.Add(first.server(), V4("10.0.0.1", 1));
  table.Add(second.server(), V4("10.0.0.2", 2));
  EXPECT_FALSE(table.End("ipv4:10.0.0.3:3"));
  EXPECT_FALSE(table.End(""));
  EXPECT_TRUE(table.End("ipv4:10.0.0.2:2"));
  EXPECT_FALSE(first.IsEnded());
  EXPECT_TRUE(second.IsEnded());
  EXPECT_FALSE(table.End("ipv4:10.0.0.2:2"));  // Once.
}

TEST(ConnectionTableTest, EndsThoseWithoutCallsForLong) {
  const int64_t before = connection_counts.open;
  ConnectionTable table;
  const Connection idle;
  const Connection busy;
  const Connection now_and_then;
  table.Add(idle.server(), V4("10.0.0.1", 1));
  table.Add(busy.server(), V4("10.0.0.2", 2));
  table.Add(now_and_then.server(), V4("10.0.0.3", 3));
  const absl::Time start = absl::UnixEpoch();
  const auto look = [&](int second, const absl::flat_hash_set<std::string>& peers) {
    table.EndIdle(peers, start + absl::Seconds(second), absl::Seconds(2));
  };
  look(0, {"ipv4:10.0.0.2:2"});
  look(1, {"ipv4:10.0.0.2:2", "ipv4:10.0.0.3:3", "unix:"});
  EXPECT_FALSE(idle.IsEnded());
  look(2, {"ipv4:10.0.0.2:2"});
  EXPECT_TRUE(idle.IsEnded());
  EXPECT_FALSE(now_and_then.IsEnded());
  look(3, {"ipv4:10.0.0.2:2"});
  EXPECT_FALSE(now_and_then.IsEnded());
  look(4, {"ipv4:10.0.0.2:2"});
  EXPECT_TRUE(now_and_then.IsEnded());
  EXPECT_FALSE(busy.IsEnded());
  EXPECT_EQ(connection_counts.open, before + 1);
}

TEST(ConnectionTableTest, UnixSocketsAreIdleTogether) {
  ConnectionTable table;
  const Connection connection;
  table.Add(connection.server(), {});
  table.EndIdle({"ipv4:10.0.0.2:2", "unix:"}, absl::UnixEpoch(), absl::ZeroDuration());
  EXPECT_FALSE(connection.IsEnded());
  table.EndIdle({"ipv4:10.0.0.2:2"}, absl::UnixEpoch(), absl::ZeroDuration());
  EXPECT_TRUE(connection.IsEnded());
}

TEST(ConnectionTableTest, WhatHasTheNumberOfAnIdleOneIsNotEnded) {
  ConnectionTable table;
  Connection idle;
  table.Add(idle.server(), V4("10.0.0.1", 1));
  const int number = idle.server();
  const Connection other;
  idle.Close();
  ASSERT_EQ(dup2(other.server(), number), number);
  table.EndIdle({}, absl::UnixEpoch(), absl::ZeroDuration());
  EXPECT_FALSE(other.IsEnded());
  close(number);
}

TEST(ConnectionTableTest, EndsTheOneThatIsReadAlone) {
  ConnectionTable table;
  Connection first;
  Connection second;
  table.Add(first.server(), V4("10.0.0.1", 1));
  table.Add(second.server(), V4("10.0.0.2", 2));
  first.Transfer(1000);
  table.MarkReads();
  EXPECT_EQ(table.EndBusiest(), "");
  first.Transfer(500);
  second.Transfer(500);
  EXPECT_EQ(table.EndBusiest(), "");
  table.MarkReads();
  second.Transfer(500);
  first.Transfer(10);
  EXPECT_EQ(table.EndBusiest(), "ipv4:10.0.0.2:2");
  EXPECT_FALSE(first.IsEnded());
  EXPECT_TRUE(second.IsEnded());
}

}  // namespace
}  // namespace expertmesh::net
