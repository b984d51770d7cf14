// The service as generated stubs of any language see it.
#include "expert_service/node_server.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "expertmesh/internal/v1/expert.grpc.pb.h"
#include "tests/support/call_recorders.h"
#include "tests/support/echo_node.h"

namespace expertmesh::node {
namespace {

class NodeServerTest : public testing::Test {
 protected:
  void SetUp() override {
    NodeServerOptions options;
    options.address = "127.0.0.1:0";
    options.max_frame_bytes = 1 << 20;
    options.clock = &clock_;
    auto server = NodeServer::Start(&node_, options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    // Only a failure takes that long.
    context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoSeconds(kTooLong));
    stub_ = internal::v1::Expert::NewStub(
        grpc::CreateChannel(address(), grpc::InsecureChannelCredentials()));
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }

  // Answer of grpc.health.v1.Health/Check, as bytes.
  std::string Health() {
    net::UnaryRecorder recorder;
    net::GrpcClient(&runtime_, address(), {})
        .UnaryCall("/grpc.health.v1.Health/Check", Frame(), {}, recorder.done());
    const absl::StatusOr<Frame> answer = recorder.Await();
    return answer.ok() ? answer->Flatten() : answer.status().ToString();
  }
  bool AwaitHealth(const std::string& wanted) {
    const absl::Time give_up = Clock::Real()->Now() + kTooLong;
    while (Health() != wanted && Clock::Real()->Now() < give_up) {
    }
    return Health() == wanted;
  }

  FakeClock clock_;
  EchoNode node_;
  net::GrpcRuntime runtime_;
  std::unique_ptr<NodeServer> server_;
  std::unique_ptr<internal::v1::Expert::Stub> stub_;
  grpc::ClientContext context_;
};

TEST_F(NodeServerTest, ComputeSpeaksToGeneratedStubs) {
  const auto stream = stub_->Compute(&context_);
  internal::v1::ComputeRequest request;
  request.set_batch_id(9);
  request.set_layer(4);
  ASSERT_TRUE(stream->Write(request));
  internal::v1::ComputeResponse response;
  ASSERT_TRUE(stream->Read(&response));  // The echo of the request: the same first field.
  EXPECT_EQ(response.batch_id(), 9u);
  ASSERT_TRUE(stream->WritesDone());
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(node_.AwaitHandlers(0));
}

TEST_F(NodeServerTest, FrameOverTheLimitEndsItsStreamOnly) {
  const auto stream = stub_->Compute(&context_);
  internal::v1::ComputeRequest request;
  request.mutable_hidden_states()->set_data(std::string(2 << 20, 'x'));
  stream->Write(request);
  internal::v1::ComputeResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  internal::v1::DescribeResponse described;
  grpc::ClientContext second;
  EXPECT_TRUE(stub_->Describe(&second, {}, &described).ok());
}

TEST_F(NodeServerTest, DescribeLoadAndUnloadReachTheEndpoint) {
  internal::v1::DescribeResponse described;
  ASSERT_TRUE(stub_->Describe(&context_, {}, &described).ok());
  EXPECT_EQ(described.description().node_id(), "fake");

  internal::v1::LoadExpertsRequest load;
  internal::v1::LoadExpertsResponse loaded;
  {
    grpc::ClientContext context;
    const grpc::Status status = stub_->LoadExperts(&context, load, &loaded);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(status.error_message(), "experts: nothing asked for");
  }
  load.add_experts()->set_layer(1);
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->LoadExperts(&second, load, &loaded).ok());
  EXPECT_EQ(loaded.loaded(), 1u);

  internal::v1::UnloadExpertsRequest unload;
  unload.add_experts()->set_layer(1);
  internal::v1::UnloadExpertsResponse unloaded;
  grpc::ClientContext third;
  ASSERT_TRUE(stub_->UnloadExperts(&third, unload, &unloaded).ok());
  EXPECT_EQ(unloaded.unloaded(), 1u);
}

TEST_F(NodeServerTest, WatchStatusTellsChangesAndBeats) {
  internal::v1::WatchStatusRequest request;
  request.set_heartbeat_ms(200);
  const auto stream = stub_->WatchStatus(&context_, request);
  internal::v1::WatchStatusResponse status;
  ASSERT_TRUE(stream->Read(&status));
  EXPECT_EQ(status.description().node_id(), "fake");
  EXPECT_EQ(status.version(), 1u);

  clock_.AwaitWaiters(2);  // The watcher, and the thread that follows health.
  clock_.Advance(absl::Milliseconds(200));
  ASSERT_TRUE(stream->Read(&status));
  EXPECT_FALSE(status.has_description());
  EXPECT_EQ(status.state(), v1::NODE_STATE_READY);

  node_.Change("renamed");
  ASSERT_TRUE(stream->Read(&status));
  EXPECT_EQ(status.description().node_id(), "renamed");
  EXPECT_EQ(status.version(), 2u);
}

TEST_F(NodeServerTest, HealthFollowsTheState) {
  const std::string serving = "\x08\x01";
  const std::string not_serving = "\x08\x02";
  EXPECT_TRUE(AwaitHealth(serving));
  node_.Change("fake", v1::NODE_STATE_DRAINING);
  EXPECT_TRUE(AwaitHealth(not_serving));
  node_.Change("fake", v1::NODE_STATE_READY);
  EXPECT_TRUE(AwaitHealth(serving));
}

TEST_F(NodeServerTest, ShutdownEndsStreamsAndWatchersInTime) {
  const auto compute = stub_->Compute(&context_);
  compute->WaitForInitialMetadata();
  grpc::ClientContext watch_context;
  const auto watch = stub_->WatchStatus(&watch_context, {});
  internal::v1::WatchStatusResponse status;
  ASSERT_TRUE(watch->Read(&status));
  const absl::Time begin = Clock::Real()->Now();
  server_->Shutdown(absl::Hours(1));  // Nothing is being worked on, so nothing takes time.
  EXPECT_LT(Clock::Real()->Now() - begin, kTooLong);
  while (watch->Read(&status)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  internal::v1::ComputeResponse response;
  EXPECT_FALSE(compute->Read(&response));
  EXPECT_EQ(compute->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(node_.AwaitHandlers(0));
}

TEST_F(NodeServerTest, PortInUseIsNamed) {
  NodeServerOptions options;
  options.address = address();
  const absl::Status status = NodeServer::Start(&node_, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(address()));
}

}  // namespace
}  // namespace expertmesh::node
