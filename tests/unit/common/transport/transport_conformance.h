// What every Transport must do. A new implementation instantiates this suite with its own setup and
// passes, or does not ship:
//
//   INSTANTIATE_TEST_SUITE_P(Mine, TransportConformance, testing::Values(&MakeMySetup));
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_TRANSPORT_TRANSPORT_CONFORMANCE_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_TRANSPORT_TRANSPORT_CONFORMANCE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/transport/transport.h"
#include "tests/support/call_result.h"
#include "tests/support/echo_node.h"
#include "tests/support/recording_observer.h"

namespace expertmesh {

// A transport, and a way to have nodes that it reaches.
class TransportSetup {
 public:
  // What the transport must have been made with.
  static constexpr size_t kFrameLimit = size_t{5} << 20;
  static constexpr size_t kWindow = size_t{2} << 20;

  virtual ~TransportSetup() = default;
  virtual Transport* transport() = 0;
  // Serves `endpoint` at `address`, or at a new one when that is empty. Returns the address.
  virtual std::string StartNode(NodeEndpoint* endpoint, const std::string& address) = 0;
  // As if the process of the node had died.
  virtual void StopNode(const std::string& address) = 0;
  // Well-formed, and no node is there.
  virtual std::string UnreachableAddress() = 0;
};

using MakeTransportSetup = std::unique_ptr<TransportSetup> (*)();

class TransportConformance : public testing::TestWithParam<MakeTransportSetup> {
 protected:
  // An EchoNode that is served as long as it lives.
  class ServedNode {
   public:
    explicit ServedNode(TransportSetup* setup) : setup_(setup) { Start(); }
    ~ServedNode() { Stop(); }
    void Start() {
      address_ = setup_->StartNode(&node_, address_);
      served_ = true;
    }
    void Stop() {
      if (served_) {
        setup_->StopNode(address_);
        served_ = false;
      }
    }
    EchoNode* operator->() { return &node_; }
    const std::string& address() const { return address_; }

   private:
    TransportSetup* const setup_;
    EchoNode node_;
    std::string address_;
    bool served_ = false;
  };

  static std::string Pattern(size_t size, int seed) {
    std::string bytes(size, '\0');
    uint32_t state = 2654435761u * static_cast<uint32_t>(seed + 1);
    for (char& byte : bytes) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<char>(state >> 24);
    }
    return bytes;
  }

  std::unique_ptr<NodeConnection> Connect(const std::string& address, NodeObserver* observer) {
    return setup_->transport()->Connect(address, observer);
  }

  const std::unique_ptr<TransportSetup> setup_ = GetParam()();
};

TEST_P(TransportConformance, FirstStatusDescribesTheNode) {
  ServedNode node(setup_.get());
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  const internal::v1::WatchStatusResponse first = observer.heard().statuses.front();
  EXPECT_EQ(first.description().node_id(), "fake");
  EXPECT_EQ(first.state(), v1::NODE_STATE_READY);
  EXPECT_TRUE(observer.heard().disconnects.empty());
  // The compute stream is open: the node has a handler for it.
  EXPECT_TRUE(node->AwaitHandlers(1));
}

TEST_P(TransportConformance, FramesArriveWholeAndInOrder) {
  ServedNode node(setup_.get());
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  std::vector<std::string> sent;
  for (int round = 0; round < 2; ++round) {
    for (const size_t size : {size_t{1}, size_t{256} << 10, size_t{3}, size_t{4} << 20}) {
      sent.push_back(Pattern(size, static_cast<int>(sent.size())));
      ASSERT_TRUE(connection->Send(Frame(sent.back())).ok());
      // One at a time past the window; the order of those in between is what is tested.
      ASSERT_TRUE(size < (size_t{4} << 20) || observer.AwaitFrames(sent.size()));
    }
  }
  ASSERT_TRUE(observer.AwaitFrames(sent.size()));
  EXPECT_TRUE(observer.heard().frames == sent);
}

TEST_P(TransportConformance, FrameOfManySlicesIsOneFrame) {
  ServedNode node(setup_.get());
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  Frame frame;
  for (int i = 0; i < 40; ++i) {
    frame.Append(Slice::FromString(Pattern(i % 2 == 0 ? 7 : 5000, i)));
  }
  ASSERT_TRUE(connection->Send(frame).ok());
  ASSERT_TRUE(observer.AwaitFrames(1));
  EXPECT_TRUE(observer.heard().frames.front() == frame.Flatten());
}

TEST_P(TransportConformance, ThreadsKeepTheirOrder) {
  constexpr int kThreads = 4;
  constexpr int kFrames = 300;
  ServedNode node(setup_.get());
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&connection, thread] {
      for (int i = 0; i < kFrames; ++i) {
        const int numbers[2] = {thread, i};
        std::string bytes(sizeof(numbers) + static_cast<size_t>(i), 'x');
        std::memcpy(bytes.data(), numbers, sizeof(numbers));
        EXPECT_TRUE(connection->Send(Frame(bytes)).ok());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  ASSERT_TRUE(observer.AwaitFrames(kThreads * kFrames));
  int next[kThreads] = {};
  for (const std::string& bytes : observer.heard().frames) {
    int numbers[2] = {};
    std::memcpy(numbers, bytes.data(), sizeof(numbers));
    ASSERT_EQ(numbers[1], next[numbers[0]]++);
    ASSERT_EQ(bytes.size(), sizeof(numbers) + static_cast<size_t>(numbers[1]));
  }
}

TEST_P(TransportConformance, ChangeOfDescriptionIsTold) {
  ServedNode node(setup_.get());
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  node->Change("renamed", v1::NODE_STATE_DRAINING);
  EXPECT_TRUE(observer.Await([](const RecordingObserver::Heard& heard) {
    return heard.statuses.back().description().node_id() == "renamed" &&
           heard.statuses.back().state() == v1::NODE_STATE_DRAINING;
  }));
}

TEST_P(TransportConformance, SendIsUnavailableWhileDown) {
  RecordingObserver observer;
  const auto connection = Connect(setup_->UnreachableAddress(), &observer);
  EXPECT_EQ(connection->Send(Frame("x")).code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE(observer.AwaitDisconnects(1));
  EXPECT_EQ(connection->Send(Frame("x")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(connection->QueuedBytes(), 0u);
}

TEST_P(TransportConformance, FullWindowIsResourceExhaustedAndLosesNothing) {
  ServedNode node(setup_.get());
  RecordingObserver observer(/*keep_frames=*/false);
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  node->Block(true);
  // The network may take some itself, but not without end.
  const std::string bytes = Pattern(256 << 10, 0);
  size_t accepted = 0;
  absl::Status status;
  while (status.ok() && accepted < 512) {
    status = connection->Send(Frame(bytes));
    accepted += status.ok() ? 1 : 0;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_GT(connection->QueuedBytes(), 0u);
  EXPECT_LE(connection->QueuedBytes(), TransportSetup::kWindow + bytes.size());
  node->Block(false);
  EXPECT_TRUE(observer.AwaitFrames(accepted));
  EXPECT_TRUE(observer.heard().disconnects.empty());
  EXPECT_TRUE(connection->Send(Frame(bytes)).ok());
  EXPECT_TRUE(observer.AwaitFrames(accepted + 1));
}

TEST_P(TransportConformance, FrameOverTheLimitIsRefused) {
  ServedNode node(setup_.get());
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  const absl::Status status =
      connection->Send(Frame(std::string(TransportSetup::kFrameLimit + 1, 'x')));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              testing::HasSubstr(std::to_string(TransportSetup::kFrameLimit)));
  ASSERT_TRUE(connection->Send(Frame(std::string(TransportSetup::kFrameLimit, 'x'))).ok());
  ASSERT_TRUE(observer.AwaitFrames(1));
  EXPECT_EQ(observer.heard().frames.front().size(), TransportSetup::kFrameLimit);
}

TEST_P(TransportConformance, DeathOfTheNodeIsToldAndItsReturnFound) {
  ServedNode node(setup_.get());
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  for (int life = 1; life <= 3; ++life) {
    ASSERT_TRUE(observer.AwaitUp(life));
    ASSERT_TRUE(connection->Send(Frame("hello")).ok());
    ASSERT_TRUE(observer.AwaitFrames(static_cast<size_t>(life)));
    node.Stop();
    ASSERT_TRUE(observer.Await([](const RecordingObserver::Heard& heard) { return !heard.up; }));
    EXPECT_EQ(connection->Send(Frame("lost")).code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(observer.heard().disconnects.back().code(), absl::StatusCode::kUnavailable);
    node->Change(std::to_string(life));
    node.Start();
  }
  ASSERT_TRUE(observer.AwaitUp(4));
  EXPECT_EQ(observer.heard().statuses.back().description().node_id(), "3");
  EXPECT_EQ(observer.heard().frame_count, 3u);
}

TEST_P(TransportConformance, NodeThatComesLateIsFound) {
  ServedNode node(setup_.get());
  node.Stop();
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitDisconnects(1));
  node.Start();
  EXPECT_TRUE(observer.AwaitUp());
}

TEST_P(TransportConformance, UnreachableAddressIsReported) {
  RecordingObserver observer;
  const std::string address = setup_->UnreachableAddress();
  const auto connection = Connect(address, &observer);
  ASSERT_TRUE(observer.AwaitDisconnects(1));
  const absl::Status why = observer.heard().disconnects.front();
  EXPECT_EQ(why.code(), absl::StatusCode::kUnavailable) << why;
  EXPECT_THAT(std::string(why.message()), testing::HasSubstr(address));
}

TEST_P(TransportConformance, NonsenseAddressIsInvalid) {
  for (const std::string address : {"", "nonsense", "host:", "host:port", "host:0", "a b:1"}) {
    RecordingObserver observer;
    const auto connection = Connect(address, &observer);
    ASSERT_TRUE(observer.AwaitDisconnects(1)) << address;
    EXPECT_EQ(observer.heard().disconnects.front().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(connection->Send(Frame("x")).code(), absl::StatusCode::kUnavailable);
  }
}

TEST_P(TransportConformance, NothingIsHeardAfterDestruction) {
  ServedNode node(setup_.get());
  for (int round = 0; round < 10; ++round) {
    auto observer = std::make_unique<RecordingObserver>(/*keep_frames=*/false);
    auto connection = Connect(node.address(), observer.get());
    if (round > 0) {  // In the first round it may not even be up.
      ASSERT_TRUE(observer->AwaitUp());
      for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(connection->Send(Frame(std::string(4096, 'x'))).ok());
      }
      node->Change(std::to_string(round));
      ASSERT_TRUE(observer->AwaitFrames(static_cast<size_t>(round)));
    }
    connection.reset();
    observer.reset();  // A sanitizer notices a call after this.
  }
  EXPECT_TRUE(node->AwaitHandlers(0));
}

TEST_P(TransportConformance, AnswerForAStreamThatIsGoneIsUnavailable) {
  ServedNode node(setup_.get());
  node->KeepSinks();
  RecordingObserver observer;
  auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  const std::shared_ptr<FrameSink> sink = node->TakeSink();
  ASSERT_TRUE(sink->Send(Frame("answer")).ok());
  ASSERT_TRUE(observer.AwaitFrames(1));
  EXPECT_FALSE(sink->IsGone());
  connection.reset();
  ASSERT_TRUE(node->AwaitHandlers(0));
  // The node may hear of it a little later, also when it sends nothing.
  const auto give_up = std::chrono::steady_clock::now() + absl::ToChronoSeconds(kTooLong);
  while (!sink->IsGone() && std::chrono::steady_clock::now() < give_up) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(sink->IsGone());
  EXPECT_EQ(sink->Send(Frame("unwanted")).code(), absl::StatusCode::kUnavailable);
  node.Stop();
  EXPECT_TRUE(sink->IsGone());
  EXPECT_EQ(sink->Send(Frame("unwanted")).code(), absl::StatusCode::kUnavailable);
}

TEST_P(TransportConformance, NoFrameIsLostToAPause) {
  ServedNode node(setup_.get());
  node->KeepSinks();
  RecordingObserver observer;
  const auto connection = Connect(node.address(), &observer);
  ASSERT_TRUE(observer.AwaitUp());
  const std::shared_ptr<FrameSink> sink = node->TakeSink();
  std::vector<std::string> sent;
  for (int i = 0; i < 50; ++i) {
    connection->PauseReading();
    sent.push_back(std::to_string(i));
    ASSERT_TRUE(connection->Send(Frame(sent.back())).ok());
    ASSERT_TRUE(observer.AwaitFrames(sent.size()));
  }
  // Frames that nothing was sent for: a status, at the latest, brings them.
  connection->PauseReading();
  for (int i = 0; i < 3; ++i) {
    sent.push_back("late " + std::to_string(i));
    ASSERT_TRUE(sink->Send(Frame(sent.back())).ok());
  }
  node->Change("renamed");
  ASSERT_TRUE(observer.AwaitFrames(sent.size()));
  EXPECT_EQ(observer.heard().frames, sent);
  EXPECT_TRUE(observer.heard().disconnects.empty());
}

TEST_P(TransportConformance, ConnectionsAreIndependent) {
  ServedNode node(setup_.get());
  RecordingObserver first_observer;
  RecordingObserver second_observer;
  auto first = Connect(node.address(), &first_observer);
  const auto second = Connect(node.address(), &second_observer);
  ASSERT_TRUE(first_observer.AwaitUp());
  ASSERT_TRUE(second_observer.AwaitUp());
  ASSERT_TRUE(node->AwaitHandlers(2));
  ASSERT_TRUE(first->Send(Frame("to the first")).ok());
  ASSERT_TRUE(second->Send(Frame("to the second")).ok());
  ASSERT_TRUE(first_observer.AwaitFrames(1));
  ASSERT_TRUE(second_observer.AwaitFrames(1));
  EXPECT_THAT(first_observer.heard().frames, testing::ElementsAre("to the first"));
  EXPECT_THAT(second_observer.heard().frames, testing::ElementsAre("to the second"));
  first.reset();
  ASSERT_TRUE(node->AwaitHandlers(1));
  ASSERT_TRUE(second->Send(Frame("still here")).ok());
  EXPECT_TRUE(second_observer.AwaitFrames(2));
  EXPECT_TRUE(second_observer.heard().disconnects.empty());
}

}  // namespace expertmesh

#include "tests/unit/common/transport/transport_conformance_calls.inc"

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_TRANSPORT_TRANSPORT_CONFORMANCE_H_
