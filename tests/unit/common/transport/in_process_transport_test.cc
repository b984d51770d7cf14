#include "tests/support/in_process_transport.h"

#include "common/base/clock.h"
#include "tests/support/faulty_transport.h"
#include "tests/unit/common/transport/transport_conformance.h"

namespace expertmesh {
namespace {

class InProcessSetup : public TransportSetup {
 public:
  Transport* transport() override { return &network_; }
  std::string StartNode(NodeEndpoint* endpoint, const std::string& address) override {
    const std::string at = address.empty() ? "node:" + std::to_string(++nodes_) : address;
    network_.Register(at, endpoint);
    return at;
  }
  void StopNode(const std::string& address) override { network_.Unregister(address); }
  std::string UnreachableAddress() override { return "nowhere:1"; }

 protected:
  InProcessNetwork network_{
      {.frame_limit_bytes = kFrameLimit, .window_bytes = kWindow, .answer_bytes = 64 << 20}};
  int nodes_ = 0;
};

// A plan without faults must change nothing.
class FaultlessSetup final : public InProcessSetup {
 public:
  Transport* transport() override { return &faulty_; }

 private:
  FaultyTransport faulty_{&network_, FaultPlan{.seed = 7}, Clock::Real()};
};

template <typename Setup>
std::unique_ptr<TransportSetup> Make() {
  return std::make_unique<Setup>();
}

INSTANTIATE_TEST_SUITE_P(InProcess, TransportConformance, testing::Values(&Make<InProcessSetup>));
INSTANTIATE_TEST_SUITE_P(Faultless, TransportConformance, testing::Values(&Make<FaultlessSetup>));

TEST(InProcessNetworkTest, AnswersThatNobodyTakesBreakTheStream) {
  InProcessNetwork network({.frame_limit_bytes = 1024, .window_bytes = 4096, .answer_bytes = 4096});
  EchoNode node;
  node.KeepSinks();
  network.Register("node:1", &node);
  class StuckObserver final : public NodeObserver {
   public:
    void OnStatus(const internal::v1::WatchStatusResponse&) override {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&free_));
    }
    void OnFrame(Frame) override {}
    void OnDisconnected(const absl::Status& why) override {
      absl::MutexLock lock(&mutex_);
      why_ = why;
    }
    void Free() {
      absl::MutexLock lock(&mutex_);
      free_ = true;
    }
    absl::Status AwaitDisconnect() {
      absl::MutexLock lock(&mutex_);
      const auto told = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !why_.ok(); };
      mutex_.AwaitWithTimeout(absl::Condition(&told), kTooLong);
      return why_;
    }

   private:
    absl::Mutex mutex_;
    bool free_ ABSL_GUARDED_BY(mutex_) = false;
    absl::Status why_ ABSL_GUARDED_BY(mutex_);
  } observer;
  const auto connection = network.Connect("node:1", &observer);
  ASSERT_TRUE(node.AwaitHandlers(1));
  const std::shared_ptr<FrameSink> sink = node.TakeSink();
  EXPECT_EQ(sink->Send(Frame(std::string(1025, 'x'))).code(), absl::StatusCode::kInvalidArgument);
  absl::Status status;
  for (int i = 0; i < 10 && status.ok(); ++i) {
    status = sink->Send(Frame(std::string(1024, 'x')));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sink->Send(Frame("x")).code(), absl::StatusCode::kUnavailable);
  observer.Free();
  EXPECT_EQ(observer.AwaitDisconnect().code(), absl::StatusCode::kResourceExhausted);
  network.Unregister("node:1");
}

TEST(InProcessNetworkTest, AnotherEndpointTakesAnAddressOver) {
  InProcessNetwork network;
  EchoNode first("first");
  EchoNode second("second");
  network.Register("node:1", &first);
  RecordingObserver observer;
  const auto connection = network.Connect("node:1", &observer);
  ASSERT_TRUE(observer.AwaitUp());
  network.Register("node:1", &second);
  EXPECT_TRUE(first.AwaitHandlers(0));
  ASSERT_TRUE(observer.AwaitUp(2));
  EXPECT_EQ(observer.heard().statuses.back().description().node_id(), "second");
  EXPECT_EQ(observer.heard().disconnects.size(), 1u);
  network.Unregister("node:1");
}

}  // namespace
}  // namespace expertmesh
