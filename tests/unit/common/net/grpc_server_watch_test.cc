// Watches, and methods that block, of a GrpcServer as its clients see them.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/base/clock.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_server.h"
#include "expertmesh/v1/control.grpc.pb.h"
#include "expertmesh/v1/router.pb.h"
#include "tests/support/call_recorders.h"

namespace expertmesh::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kDescribeModel[] = "/expertmesh.v1.Router/DescribeModel";
constexpr char kDrainNode[] = "/expertmesh.v1.Control/DrainNode";
constexpr char kWatchTopology[] = "/expertmesh.v1.Control/WatchTopology";
constexpr size_t kStateBytes = 100'000;

class GrpcServerWatchTest : public testing::Test {
 protected:
  ~GrpcServerWatchTest() override {
    if (!lasting_go_on_.HasBeenNotified()) {
      lasting_go_on_.Notify();
    }
  }

  void Serve(size_t most_watchers = 100, size_t max_message_bytes = size_t{1} << 20) {
    GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.options.max_message_bytes = max_message_bytes;
    spec.most_watchers = most_watchers;
    spec.ordinary = {
        OrdinaryMethod<v1::DescribeModelRequest, v1::DescribeModelResponse>(
            kDescribeModel,
            [](const v1::DescribeModelRequest&) { return v1::DescribeModelResponse(); }),
        LastingMethod<v1::DrainNodeRequest, v1::DrainNodeResponse>(
            kDrainNode, [this](const v1::DrainNodeRequest&) {
              lasting_go_on_.WaitForNotification();
              return v1::DrainNodeResponse();
            })};
    spec.watches = {{.name = kWatchTopology,
                     .heartbeat = [](const Frame& frame) -> absl::StatusOr<absl::Duration> {
                       const auto request = ParseRequest<v1::WatchTopologyRequest>(frame);
                       if (!request.ok()) {
                         return request.status();
                       }
                       return absl::Hours(1);
                     },
                     .read = [this] { return Read(); },
                     .subscribe =
                         [this](std::function<void()> on_change) {
                           on_change_ = std::move(on_change);
                           return nullptr;
                         }}};
    auto server = GrpcServer::Start(std::move(spec));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  WatchedState Read() {
    absl::MutexLock lock(&mutex_);
    v1::WatchTopologyResponse response;
    response.mutable_topology()->set_epoch(epoch_);
    response.mutable_topology()->set_fingerprint(std::string(kStateBytes, 'x'));
    const Frame frame(response.SerializeAsString());
    return {.version = epoch_, .whole = frame, .brief = frame};
  }
  void Change() {
    {
      absl::MutexLock lock(&mutex_);
      ++epoch_;
    }
    on_change_();
  }
  static uint64_t EpochOf(const std::string& frame) {
    v1::WatchTopologyResponse response;
    EXPECT_TRUE(response.ParseFromString(frame));
    return response.topology().epoch();
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  std::unique_ptr<v1::Control::Stub> stub() {
    return v1::Control::NewStub(grpc::CreateChannel(address(), grpc::InsecureChannelCredentials()));
  }
  GrpcClient Client() { return GrpcClient(&runtime_, address(), {}); }
  std::shared_ptr<ClientStream> Watch(StreamRecorder& recorder, const std::string& request = "") {
    auto stream = Client().OpenStream(kWatchTopology, {}, recorder.callbacks());
    EXPECT_TRUE(stream->Send(Frame(request)).ok());
    return stream;
  }

  // Opens one as soon as there is a place for it: the place of one that has gone is free a little
  // later.
  std::shared_ptr<ClientStream> WatchWhenFree(std::optional<StreamRecorder>* recorder) {
    const absl::Time give_up = Clock::Real()->Now() + kTooLong;
    for (;;) {
      auto watch = Watch(recorder->emplace());
      if ((*recorder)->AwaitFrames(1)) {
        return watch;
      }
      EXPECT_EQ((*recorder)->AwaitClosed().code(), absl::StatusCode::kResourceExhausted);
      if (HasFailure() || Clock::Real()->Now() > give_up) {
        ADD_FAILURE() << "no place became free";
        return watch;
      }
    }
  }

  absl::Mutex mutex_;
  uint64_t epoch_ ABSL_GUARDED_BY(mutex_) = 1;
  std::function<void()> on_change_;
  absl::Notification lasting_go_on_;
  GrpcRuntime runtime_;
  std::unique_ptr<GrpcServer> server_;
};

TEST_F(GrpcServerWatchTest, TellsTheStateAndItsChanges) {
  Serve();
  StreamRecorder recorder;
  const auto watch = Watch(recorder);
  ASSERT_TRUE(recorder.AwaitFrames(1));
  Change();
  ASSERT_TRUE(recorder.AwaitFrames(2));
  EXPECT_EQ(EpochOf(recorder.frames()[0]), 1u);
  EXPECT_EQ(EpochOf(recorder.frames()[1]), 2u);
  server_->Shutdown(kTooLong);
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kUnavailable);
}

TEST_F(GrpcServerWatchTest, OneWhoDoesNotReadMissesStatesAndCostsNothing) {
  constexpr uint64_t kChanges = 500;  // 50 MB, if all were kept.
  Serve();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoSeconds(kTooLong));
  const auto slow = stub()->WatchTopology(&context, {});
  v1::WatchTopologyResponse response;
  ASSERT_TRUE(slow->Read(&response));
  StreamRecorder other;
  const auto watch = Watch(other);
  for (uint64_t i = 0; i < kChanges; ++i) {
    ASSERT_TRUE(other.AwaitFrames(i + 1));
    Change();
  }
  ASSERT_TRUE(other.AwaitFrames(kChanges + 1));
  int answers = 0;
  do {
    ASSERT_TRUE(slow->Read(&response));
    ++answers;
  } while (response.topology().epoch() <= kChanges);
  EXPECT_LT(answers, 100);  // What the network holds, and one.
  context.TryCancel();
}

TEST_F(GrpcServerWatchTest, PlacesOfThoseWhoHaveGoneAreFree) {
  Serve(/*most_watchers=*/2);
  for (int i = 0; i < 5; ++i) {
    std::optional<StreamRecorder> first;
    std::optional<StreamRecorder> second;
    const auto one = WatchWhenFree(&first);
    const auto two = WatchWhenFree(&second);
    ASSERT_FALSE(HasFailure());
    StreamRecorder third;
    const auto refused = Watch(third);
    const absl::Status why = third.AwaitClosed();
    EXPECT_EQ(why.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(why.message()), HasSubstr("2 watches are open already"));
    one->Cancel();
    two->Cancel();
  }
}

TEST_F(GrpcServerWatchTest, BytesThatAreNoRequestAreRefused) {
  Serve();
  StreamRecorder recorder;
  const auto watch = Watch(recorder, "\xff\xff");
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(GrpcServerWatchTest, AStateOverTheLimitIsAnErrorThatTellsTheLimit) {
  Serve(/*most_watchers=*/100, /*max_message_bytes=*/kStateBytes);
  StreamRecorder recorder;
  const auto watch = Watch(recorder);
  const absl::Status why = recorder.AwaitClosed();
  EXPECT_EQ(why.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(why.message()), HasSubstr("the limit is 100000"));
}

TEST_F(GrpcServerWatchTest, CallsThatTakeLongDoNotHoldUpThoseThatDoNot) {
  Serve();
  std::vector<UnaryRecorder> lasting(20);
  std::vector<std::shared_ptr<ClientCall>> calls;
  for (UnaryRecorder& recorder : lasting) {
    calls.push_back(Client().UnaryCall(kDrainNode, Frame(), {}, recorder.done()));
  }
  for (int i = 0; i < 20; ++i) {
    UnaryRecorder recorder;
    const auto call = Client().UnaryCall(kDescribeModel, Frame(), {}, recorder.done());
    EXPECT_TRUE(recorder.Await().ok());
  }
  lasting_go_on_.Notify();
  for (UnaryRecorder& recorder : lasting) {
    EXPECT_TRUE(recorder.Await().ok());
  }
}

}  // namespace
}  // namespace expertmesh::net
