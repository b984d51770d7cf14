#include "common/net/grpc_transport.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "common/net/grpc_server.h"
#include "expert_service/node_server.h"
#include "tests/unit/common/transport/transport_conformance.h"

namespace expertmesh::net {
namespace {

// A port of loopback that is taken, with no process listening on it.
class DeadPort {
 public:
  DeadPort() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~DeadPort() { close(socket_); }
  // From now on the kernel accepts connections, and no process ever answers.
  void Listen() { EXPECT_EQ(listen(socket_, 16), 0); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  const int socket_;
  int port_ = 0;
};

class GrpcSetup final : public TransportSetup {
 public:
  Transport* transport() override { return &transport_; }
  std::string StartNode(NodeEndpoint* endpoint, const std::string& address) override {
    node::NodeServerOptions options;
    options.address = address.empty() ? "127.0.0.1:0" : address;
    options.max_frame_bytes = kFrameLimit;
    auto server = node::NodeServer::Start(endpoint, options);
    EXPECT_TRUE(server.ok()) << server.status();
    const std::string at = "127.0.0.1:" + std::to_string((*server)->port());
    servers_[at] = *std::move(server);
    return at;
  }
  void StopNode(const std::string& address) override { servers_.erase(address); }
  std::string UnreachableAddress() override { return dead_port_.address(); }

 private:
  DeadPort dead_port_;
  GrpcRuntime runtime_;
  GrpcTransport transport_{
      &runtime_, Clock::Real(), {.frame_limit_bytes = kFrameLimit, .window_bytes = kWindow}};
  std::map<std::string, std::unique_ptr<node::NodeServer>> servers_;
};

std::unique_ptr<TransportSetup> MakeGrpcSetup() { return std::make_unique<GrpcSetup>(); }

INSTANTIATE_TEST_SUITE_P(Grpc, TransportConformance, testing::Values(&MakeGrpcSetup));

// Clocks that stand still on both sides, so silence is a matter of the test.
class GrpcTransportTimeTest : public testing::Test {
 protected:
  std::unique_ptr<node::NodeServer> Serve() {
    node::NodeServerOptions options;
    options.address = "127.0.0.1:0";
    options.clock = &node_clock_;
    auto server = node::NodeServer::Start(&node_, options);
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }

  FakeClock clock_;
  FakeClock node_clock_;
  EchoNode node_;
  GrpcRuntime runtime_;
  GrpcTransport transport_{&runtime_, &clock_, {}};
  RecordingObserver observer_;
};

TEST_F(GrpcTransportTimeTest, SilenceIsADisconnect) {
  const auto server = Serve();
  const auto connection =
      transport_.Connect("127.0.0.1:" + std::to_string(server->port()), &observer_);
  ASSERT_TRUE(observer_.AwaitUp());
  clock_.Advance(absl::Seconds(3));
  ASSERT_TRUE(observer_.AwaitDisconnects(1));
  const absl::Status why = observer_.heard().disconnects.front();
  EXPECT_EQ(why.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(why.message()), testing::HasSubstr("nothing heard for 3s"));
  EXPECT_EQ(connection->Send(Frame("x")).code(), absl::StatusCode::kUnavailable);
  // The first pause has been begun by now.
  clock_.Advance(absl::Milliseconds(100));
  EXPECT_TRUE(observer_.AwaitUp(2));
}

TEST_F(GrpcTransportTimeTest, HeartbeatsAreSentWithoutDescriptionAndBreakTheSilence) {
  const auto server = Serve();
  const auto connection =
      transport_.Connect("127.0.0.1:" + std::to_string(server->port()), &observer_);
  ASSERT_TRUE(observer_.AwaitUp());
  for (size_t beat = 1; beat <= 4; ++beat) {
    clock_.Advance(absl::Seconds(2));
    node_clock_.AwaitWaiters(2);  // The watcher and the thread that follows health.
    node_clock_.Advance(absl::Seconds(1));
    ASSERT_TRUE(observer_.Await([beat](const RecordingObserver::Heard& heard) {
      return heard.statuses.size() == beat + 1;
    }));
    EXPECT_FALSE(observer_.heard().statuses.back().has_description());
  }
  EXPECT_TRUE(observer_.heard().disconnects.empty());
}

TEST_F(GrpcTransportTimeTest, PeerThatNeverAnswersIsReported) {
  DeadPort port;
  port.Listen();
  const auto connection = transport_.Connect(port.address(), &observer_);
  // No clock but this one is waited for.
  clock_.AwaitWaiters(1);
  while (observer_.heard().disconnects.empty()) {
    clock_.Advance(absl::Seconds(1));
    std::this_thread::yield();
  }
  EXPECT_EQ(observer_.heard().disconnects.front().code(), absl::StatusCode::kUnavailable);
}

// A FakeClock that knows what it is waited for.
class DeadlineClock final : public Clock {
 public:
  absl::Time Now() const override { return clock_.Now(); }
  bool WaitUntil(absl::Mutex* mutex, absl::CondVar* condition, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    {
      absl::MutexLock lock(&mutex_);
      deadlines_.insert(deadline);
    }
    return clock_.WaitUntil(mutex, condition, deadline);
  }
  void Advance(absl::Duration by) { clock_.Advance(by); }
  bool AwaitDeadline(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    const auto waited_for = [this, deadline]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return deadlines_.count(deadline) > 0;
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&waited_for), kTooLong);
  }

 private:
  FakeClock clock_;
  absl::Mutex mutex_;
  std::set<absl::Time> deadlines_ ABSL_GUARDED_BY(mutex_);
};

// A process that does not run hears nothing, which says nothing of its nodes.
TEST_F(GrpcTransportTimeTest, PausesOfThisProcessAreNoSilence) {
  const auto server = Serve();
  DeadlineClock clock;
  std::atomic<bool> paused = true;
  std::atomic<int64_t> awake_since_nanos = 0;
  const auto awake_since = [&] {
    return paused ? clock.Now() : absl::FromUnixNanos(awake_since_nanos);
  };
  GrpcTransport transport(&runtime_, &clock, {.awake_since = awake_since});
  const auto connection =
      transport.Connect("127.0.0.1:" + std::to_string(server->port()), &observer_);
  ASSERT_TRUE(observer_.AwaitUp());
  clock.Advance(absl::Seconds(10));
  ASSERT_TRUE(clock.AwaitDeadline(clock.Now() + absl::Seconds(3)));
  EXPECT_EQ(transport.AwakeSince(), clock.Now());
  clock.Advance(absl::Seconds(2));
  paused = false;
  awake_since_nanos = absl::ToUnixNanos(clock.Now());
  clock.Advance(absl::Seconds(1));
  // Seen again, and not for long enough.
  ASSERT_TRUE(clock.AwaitDeadline(clock.Now() + absl::Seconds(2)));
  EXPECT_TRUE(observer_.heard().disconnects.empty());
  clock.Advance(absl::Seconds(2));
  ASSERT_TRUE(observer_.AwaitDisconnects(1));
  EXPECT_THAT(std::string(observer_.heard().disconnects.front().message()),
              testing::HasSubstr("nothing heard for 15s"));
}

TEST_F(GrpcTransportTimeTest, SilenceBetweenPausesWithoutEndIsNoticed) {
  const auto server = Serve();
  GrpcTransport transport(&runtime_, &clock_,
                          {.awake_since = [&] { return clock_.Now() - absl::Seconds(1); }});
  const auto connection =
      transport.Connect("127.0.0.1:" + std::to_string(server->port()), &observer_);
  ASSERT_TRUE(observer_.AwaitUp());
  while (observer_.heard().disconnects.empty()) {
    clock_.Advance(absl::Seconds(1));
    std::this_thread::yield();
  }
}

TEST_F(GrpcTransportTimeTest, PausesBetweenAttemptsGrowToTheMaximum) {
  DeadPort port;
  DeadlineClock clock;
  GrpcTransport transport(&runtime_, &clock, {});
  const auto connection = transport.Connect(port.address(), &observer_);
  size_t attempts = 0;
  for (const int pause_ms : {100, 200, 400, 800, 1000, 1000}) {
    ASSERT_TRUE(observer_.AwaitDisconnects(++attempts));
    const absl::Duration pause = absl::Milliseconds(pause_ms);
    ASSERT_TRUE(clock.AwaitDeadline(clock.Now() + pause)) << pause;
    EXPECT_EQ(observer_.heard().disconnects.size(), attempts);
    clock.Advance(pause);
  }
}

TEST_F(GrpcTransportTimeTest, PeerThatIsNoNodeIsReported) {
  GrpcServerSpec spec;
  spec.address = "127.0.0.1:0";
  auto server = GrpcServer::Start(std::move(spec));
  ASSERT_TRUE(server.ok()) << server.status();
  const auto connection =
      transport_.Connect("127.0.0.1:" + std::to_string((*server)->port()), &observer_);
  ASSERT_TRUE(observer_.AwaitDisconnects(1));
  EXPECT_EQ(observer_.heard().disconnects.front().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(observer_.heard().times_up, 0);
}

}  // namespace
}  // namespace expertmesh::net
