// Shutdown of a GrpcServer while its clients go on calling.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_server.h"
#include "tests/support/call_recorders.h"
#include "tests/support/too_long.h"

namespace expertmesh::net {
namespace {

constexpr char kEcho[] = "/test.First/Echo";
constexpr char kWork[] = "/test.First/Work";
// Methods behind the first: the more there are, the longer it takes gRPC to refuse all that wait
// for calls, and the more likely a call of the first method comes meanwhile.
constexpr int kMoreMethods = 200;
constexpr int kCallers = 16;

void Echo(Frame request, const CallContextPtr&, UnaryResponder respond) {
  respond(std::move(request));
}

// Whether a server that shuts down has answered so.
bool IsRefusal(const absl::Status& status) {
  return absl::StrContains(status.message(), "the server is shutting down");
}

// Calls again and again while it is answered, if only with a refusal; returns why it is not.
absl::Status CallUntilTheEnd(GrpcRuntime* runtime, const std::string& target,
                             absl::Notification* begun) {
  GrpcClient client(runtime, target, {});
  absl::Status status;
  while (status.ok() || IsRefusal(status)) {
    UnaryRecorder answer;
    const auto call = client.UnaryCall(kEcho, Frame("x"), {}, answer.done());
    status = answer.Await().status();
    call->Cancel();  // Lets the shutdown end if there was no answer.
    if (!begun->HasBeenNotified()) {
      begun->Notify();
    }
  }
  return status;
}

// Once in several times a call comes in the moment in which gRPC forgets it.
class GrpcServerShutdownTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.unary = {{kEcho, Echo}};
    for (int i = 0; i < kMoreMethods; ++i) {
      spec.unary.push_back({"/test.More/Echo" + std::to_string(i), Echo});
    }
    spec.streams = {{kWork, [this](std::shared_ptr<ServerStreamSink> sink, const CallContextPtr&) {
                       work_ = sink;
                       working_.Notify();
                       return std::make_unique<EchoHandler>(std::move(sink));
                     }}};
    auto server = GrpcServer::Start(std::move(spec));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    target_ = "127.0.0.1:" + std::to_string(server_->port());
  }

  std::string target_;
  absl::Notification working_;
  std::shared_ptr<ServerStreamSink> work_;  // Once working_.
  std::unique_ptr<GrpcServer> server_;
  GrpcRuntime runtime_;
};

TEST_P(GrpcServerShutdownTest, NoCallIsLeftWithoutAnAnswerWhileOthersFinish) {
  StreamRecorder recorder;
  const auto stream =
      GrpcClient(&runtime_, target_, {}).OpenStream(kWork, {}, recorder.callbacks());
  working_.WaitForNotification();
  std::vector<absl::Notification> begun(kCallers);
  std::vector<std::thread> callers;
  for (absl::Notification& one : begun) {
    callers.emplace_back([this, &one] {
      EXPECT_THAT(CallUntilTheEnd(&runtime_, target_, &one).code(),
                  testing::AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kCancelled));
    });
  }
  for (absl::Notification& one : begun) {
    one.WaitForNotification();
  }
  std::thread stopping([this] { server_->Shutdown(2 * kTooLong); });
  for (std::thread& caller : callers) {
    caller.join();
  }
  // What has been accepted goes on.
  ASSERT_TRUE(work_->Send(Frame("done")).ok());
  work_.reset();
  stopping.join();
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(recorder.frames(), std::vector<std::string>{"done"});
}

INSTANTIATE_TEST_SUITE_P(Tries, GrpcServerShutdownTest, testing::Range(0, 12));

}  // namespace
}  // namespace expertmesh::net
