#include "common/net/listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/base/connection_counts.h"
#include "tests/support/too_long.h"

namespace expertmesh::net {
namespace {

// What a listener hands over.
class Accepted {
 public:
  ~Accepted() {
    for (const int connection : connections_) {
      close(connection);
    }
  }
  Listener::Accept Handler() {
    return [this](int, int connection) {
      absl::MutexLock lock(&mutex_);
      connections_.push_back(connection);
    };
  }
  bool Await(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return connections_.size() >= count;
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&enough), kTooLong);
  }
  int at(size_t index) {
    absl::MutexLock lock(&mutex_);
    return connections_.at(index);
  }

 private:
  absl::Mutex mutex_;
  std::vector<int> connections_ ABSL_GUARDED_BY(mutex_);
};

// -1 when nothing listens there.
int ConnectTo(int port) {
  const int made = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(made, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    close(made);
    return -1;
  }
  return made;
}

bool AwaitEnd(int connection) {
  char byte = 0;
  return recv(connection, &byte, 1, 0) <= 0;
}

int Option(int connection, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  EXPECT_EQ(getsockopt(connection, level, name, &value, &size), 0);
  return value;
}

TEST(ListenerTest, HandsOverConnectionsAsGrpcWantsThem) {
  for (const char* address : {"127.0.0.1:0", "0.0.0.0:0", "[::]:0", "localhost:0"}) {
    auto listener = Listener::Bind({.address = address, .user_timeout = absl::Seconds(7)});
    ASSERT_TRUE(listener.ok()) << listener.status();
    Accepted accepted;
    (*listener)->Start(accepted.Handler());
    const int client = ConnectTo((*listener)->port());
    ASSERT_GE(client, 0) << address;
    ASSERT_TRUE(accepted.Await(1));
    EXPECT_EQ(Option(accepted.at(0), IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_EQ(Option(accepted.at(0), IPPROTO_TCP, TCP_USER_TIMEOUT), 7000);
    const int port = (*listener)->port();
    (*listener)->Stop();
    EXPECT_LT(ConnectTo(port), 0) << address;
    close(client);
  }
}

TEST(ListenerTest, SaysWhyItCannotListen) {
  const auto first = Listener::Bind({.address = "127.0.0.1:0"});
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string taken = "127.0.0.1:" + std::to_string((*first)->port());
  const absl::Status second = Listener::Bind({.address = taken}).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()),
              testing::AllOf(testing::HasSubstr(taken), testing::HasSubstr("in use")));
  EXPECT_EQ(Listener::Bind({.address = "nonsense"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Listener::Bind({.address = "unix:/no/such/folder/socket"}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(Listener::Bind({.address = "unix:" + std::string(200, 'x')}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ListenerTest, ReplacesAUnixSocketThatIsLeftOverAndTakesItsOwnAway) {
  const std::string path = testing::TempDir() + "/listener_test_" + std::to_string(getpid());
  const int left = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const auto* const any = reinterpret_cast<const sockaddr*>(&address);
  ASSERT_EQ(bind(left, any, sizeof(address)), 0);
  close(left);
  auto listener = Listener::Bind({.address = "unix:" + path});
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_EQ((*listener)->port(), 0);
  Accepted accepted;
  (*listener)->Start(accepted.Handler());
  const int client = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(connect(client, any, sizeof(address)), 0);
  EXPECT_TRUE(accepted.Await(1));
  close(client);
  (*listener)->Stop();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(ListenerTest, ClosesMoreConnectionsThanAllowedUntilOthersAreGone) {
  auto listener = Listener::Bind({.address = "127.0.0.1:0", .max_connections = 2});
  ASSERT_TRUE(listener.ok()) << listener.status();
  const uint64_t before = connection_counts.refused_for_number;
  Accepted accepted;
  (*listener)->Start(accepted.Handler());
  const int port = (*listener)->port();
  const int first = ConnectTo(port);
  const int second = ConnectTo(port);
  ASSERT_TRUE(accepted.Await(2));
  const int third = ConnectTo(port);
  EXPECT_TRUE(AwaitEnd(third));
  EXPECT_EQ(connection_counts.refused_for_number, before + 1);
  shutdown(accepted.at(0), SHUT_RDWR);
  ASSERT_GE(dup2(third, accepted.at(0)), 0);  // As if it were closed, and its number used again.
  const int fourth = ConnectTo(port);
  EXPECT_TRUE(accepted.Await(3));
  for (const int client : {first, second, third, fourth}) {
    close(client);
  }
}

TEST(ListenerTest, StopsWhileConnectionsComeWithoutEnd) {
  const std::string path = testing::TempDir() + "/listener_test_stop_" + std::to_string(getpid());
  auto listener = Listener::Bind({.address = "unix:" + path});
  ASSERT_TRUE(listener.ok()) << listener.status();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const auto connect_again = [&address] {
    const int client = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return client;
  };
  std::atomic<bool> enough = false;
  absl::Notification coming;
  int accepted = 0;
  (*listener)->Start([&](int, int connection) {
    close(connection);
    if (!enough) {
      close(connect_again());
    }
    if (++accepted == 3) {
      coming.Notify();
    }
  });
  close(connect_again());
  coming.WaitForNotification();
  absl::Notification stopped;
  std::thread stopping([&] {
    (*listener)->Stop();
    stopped.Notify();
  });
  EXPECT_TRUE(stopped.WaitForNotificationWithTimeout(kTooLong));
  enough = true;
  stopping.join();
}

TEST(ListenerTest, KeepsDescriptorsForOthers) {
  EXPECT_EQ(ReservedDescriptors(96), 16u);
  EXPECT_EQ(ReservedDescriptors(1024), 128u);
  EXPECT_EQ(ReservedDescriptors(1 << 20), 1024u);
  EXPECT_EQ(ReservedDescriptors(20), 10u);
}

}  // namespace
}  // namespace expertmesh::net
