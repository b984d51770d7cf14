// Connections and streams that reach GrpcOptions::max_connection_age.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_server.h"
#include "common/wire/error_reason.h"
#include "tests/support/call_recorders.h"
#include "tests/support/scripted_watch.h"

namespace expertmesh::net {
namespace {

constexpr char kEcho[] = "/test.Service/Echo";
constexpr char kLate[] = "/test.Service/Late";
constexpr char kWatch[] = "/test.Service/Watch";

// Answers the first frame when the stream is ending, and no other.
class LateHandler final : public StreamHandler {
 public:
  explicit LateHandler(std::shared_ptr<ServerStreamSink> sink) : sink_(std::move(sink)) {}
  ~LateHandler() override {
    if (sink_ != nullptr && !request_.empty()) {
      EXPECT_TRUE(sink_->IsEnding());
      EXPECT_FALSE(sink_->IsGone());
      sink_->Send(std::move(request_)).IgnoreError();
    }
  }
  void OnFrame(Frame frame) override { request_ = std::move(frame); }

 private:
  const std::shared_ptr<ServerStreamSink> sink_;
  Frame request_;
};

class GrpcServerAgeTest : public testing::Test {
 protected:
  void SetUp() override {
    GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.options.max_connection_age = absl::Milliseconds(50);
    spec.unary = {{kEcho, [](Frame request, const CallContextPtr&, UnaryResponder respond) {
                     respond(std::move(request));
                   }}};
    spec.streams = {{kLate, [](std::shared_ptr<ServerStreamSink> sink, const CallContextPtr&) {
                       return std::make_unique<LateHandler>(std::move(sink));
                     }}};
    spec.watches = {UnchangedWatch(kWatch)};
    auto server = GrpcServer::Start(std::move(spec));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<GrpcClient>(
        &runtime_, "127.0.0.1:" + std::to_string(server_->port()), GrpcOptions());
  }

  std::unique_ptr<GrpcServer> server_;
  GrpcRuntime runtime_;
  std::unique_ptr<GrpcClient> client_;
};

TEST_F(GrpcServerAgeTest, AStreamEndsAfterTheAnswersToWhatItTook) {
  StreamRecorder recorder;
  const auto stream = client_->OpenStream(kLate, {}, recorder.callbacks());
  ASSERT_TRUE(stream->Send(Frame("asked")).ok());
  const absl::Status end = recorder.AwaitClosed();
  EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(end), v1::ERROR_REASON_STREAM_AGED) << end;
  EXPECT_EQ(recorder.frames(), std::vector<std::string>{"asked"});
}

TEST_F(GrpcServerAgeTest, AWatchEnds) {
  StreamRecorder recorder;
  const auto stream = client_->OpenStream(kWatch, {}, recorder.callbacks());
  ASSERT_TRUE(stream->Send(Frame()).ok());
  stream->CloseSend();
  EXPECT_EQ(ReasonOf(recorder.AwaitClosed()), v1::ERROR_REASON_STREAM_AGED);
}

TEST_F(GrpcServerAgeTest, CallsGoOnOverNewConnections) {
  const absl::Time end = absl::Now() + absl::Milliseconds(300);  // Several ages.
  int calls = 0;
  bool failed = false;
  while (absl::Now() < end) {
    UnaryRecorder recorder;
    client_->UnaryCall(kEcho, Frame("asked"), {}, recorder.done());
    const absl::StatusOr<Frame> answer = recorder.Await();
    // One that crosses the end of its connection on the way is not served, and may be sent again.
    ASSERT_TRUE(answer.ok() || (absl::IsUnavailable(answer.status()) && !failed))
        << answer.status();
    failed = !answer.ok();
    ++calls;
  }
  EXPECT_GT(calls, 1);
}

}  // namespace
}  // namespace expertmesh::net
