// GrpcServer and GrpcClient against each other and against generated stubs.
#include "common/net/grpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/base/clock.h"
#include "common/net/grpc_client.h"
#include "expertmesh/v1/control.grpc.pb.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "tests/support/call_recorders.h"
#include "tests/support/compare_rows.h"
#include "tests/support/scripted_watch.h"

namespace expertmesh::net {
namespace {

using testing::HasSubstr;

constexpr size_t kMessageLimit = 1 << 20;
constexpr char kForward[] = "/expertmesh.v1.Router/Forward";
constexpr char kForwardStream[] = "/expertmesh.v1.Router/ForwardStream";
constexpr char kDescribeModel[] = "/expertmesh.v1.Router/DescribeModel";
constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

class GrpcServerTest : public testing::Test {
 protected:
  ~GrpcServerTest() override { Shutdown(absl::ZeroDuration()); }

  void Serve(UnaryHandler unary, StreamFactory streams, size_t send_queue_bytes = 64 << 20) {
    GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.options.max_message_bytes = kMessageLimit;
    spec.unary = {{kForward, std::move(unary)}};
    spec.streams = {{kForwardStream, std::move(streams)}};
    spec.ordinary = {net::OrdinaryMethod<v1::DescribeModelRequest, v1::DescribeModelResponse>(
        kDescribeModel, [](const v1::DescribeModelRequest&) {
          v1::DescribeModelResponse response;
          response.set_family("described");
          return response;
        })};
    spec.watches = {UnchangedWatch("/expertmesh.v1.Control/WatchTopology")};
    spec.send_queue_bytes = send_queue_bytes;
    auto server = GrpcServer::Start(std::move(spec));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void ServeUnary(UnaryHandler unary) {
    Serve(std::move(unary), [](std::shared_ptr<FrameSink> sink, const CallContextPtr&) {
      return std::make_unique<EchoHandler>(std::move(sink));
    });
  }
  void ServeStreams(StreamFactory streams, size_t send_queue_bytes = 64 << 20) {
    Serve([](Frame, const CallContextPtr&, UnaryResponder respond) { respond(Frame()); },
          std::move(streams), send_queue_bytes);
  }
  void ServeEcho() {
    ServeUnary([](Frame request, const CallContextPtr&, UnaryResponder respond) {
      respond(std::move(request));
    });
  }
  void Shutdown(absl::Duration grace) {
    if (server_ != nullptr) {
      server_->Shutdown(grace);
    }
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  std::unique_ptr<v1::Router::Stub> Stub() {
    return v1::Router::NewStub(grpc::CreateChannel(address(), grpc::InsecureChannelCredentials()));
  }
  GrpcClient Client(size_t limit = 64 << 20) {
    GrpcOptions options;
    options.max_message_bytes = limit;
    return GrpcClient(&runtime_, address(), options);
  }
  // Calls `method` and waits for the answer.
  absl::StatusOr<Frame> Call(const std::string& method, const std::string& request,
                             const CallOptions& options = {}) {
    UnaryRecorder recorder;
    Client().UnaryCall(method, Frame(request), options, recorder.done());
    return recorder.Await();
  }

  std::unique_ptr<GrpcServer> server_;
  GrpcRuntime runtime_;
};

TEST_F(GrpcServerTest, GeneratedStubTalksToRawUnaryAndOrdinaryMethods) {
  ServeUnary([](Frame request, const CallContextPtr&, UnaryResponder respond) {
    v1::ForwardRequest message;
    ASSERT_TRUE(message.ParseFromString(request.Flatten()));
    v1::ForwardResponse answer;
    answer.set_request_id(message.request_id());
    answer.mutable_output()->set_data(message.hidden_states().data());
    respond(Frame(answer.SerializeAsString()));
  });
  const auto stub = Stub();
  v1::ForwardRequest request;
  request.set_request_id(7);
  request.mutable_hidden_states()->set_data(std::string(300'000, 'h'));
  v1::ForwardResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(stub->Forward(&context, request, &response).ok());
  EXPECT_EQ(response.request_id(), 7u);
  EXPECT_TRUE(SameRows(response.output().data(), request.hidden_states().data(), 1));
  v1::DescribeModelResponse description;
  grpc::ClientContext second;
  ASSERT_TRUE(stub->DescribeModel(&second, {}, &description).ok());
  EXPECT_EQ(description.family(), "described");
}

TEST_F(GrpcServerTest, GeneratedStubGetsAnswersAfterItClosedItsSide) {
  // Answers only when all three requests are there and the client has said that there are no more.
  struct Late final : StreamHandler {
    explicit Late(std::shared_ptr<FrameSink> replies) : sink(std::move(replies)) {}
    ~Late() override {
      for (Frame& frame : frames) {
        EXPECT_TRUE(sink->Send(std::move(frame)).ok());
      }
    }
    void OnFrame(Frame frame) override { frames.push_back(std::move(frame)); }
    std::shared_ptr<FrameSink> sink;
    std::vector<Frame> frames;
  };
  ServeStreams([](std::shared_ptr<FrameSink> sink, const CallContextPtr&) {
    return std::make_unique<Late>(std::move(sink));
  });
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoSeconds(kTooLong));
  const auto stub = Stub();
  const auto stream = stub->ForwardStream(&context);
  for (uint64_t id = 1; id <= 3; ++id) {
    v1::ForwardRequest request;
    request.set_request_id(id);
    ASSERT_TRUE(stream->Write(request));
  }
  ASSERT_TRUE(stream->WritesDone());
  v1::ForwardResponse response;
  for (uint64_t id = 1; id <= 3; ++id) {
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.request_id(), id);
  }
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(GrpcServerTest, HandlerLearnsDeadlineAndTrace) {
  absl::Mutex mutex;
  CallContextPtr seen;
  ServeUnary([&](Frame request, const CallContextPtr& context, UnaryResponder respond) {
    absl::MutexLock lock(&mutex);
    seen = context;
    respond(std::move(request));
  });
  CallOptions options;
  constexpr absl::Duration kTimeout = absl::Seconds(100);
  options.deadline = Clock::Real()->Now() + kTimeout;
  options.metadata = {{"traceparent", "00-trace"}, {"tracestate", "a=b"}, {"tracestate", "c=d"}};
  ASSERT_TRUE(Call(kForward, "x", options).ok());
  {
    absl::MutexLock lock(&mutex);
    // gRPC sends the time left rounded up, coarser the longer it is (whole seconds from 100 s on),
    // and it counts from its arrival: however long the request was under way, not before the
    // caller's own deadline (but for the clock's steps).
    EXPECT_LE(seen->deadline(), Clock::Real()->Now() + kTimeout + absl::Seconds(1));
    EXPECT_GE(seen->deadline(), options.deadline - absl::Seconds(1));
    EXPECT_EQ(seen->traceparent(), "00-trace");
    EXPECT_EQ(seen->tracestate(), "a=b,c=d");  // Several are one that goes on.
    EXPECT_THAT(seen->peer(), HasSubstr("127.0.0.1"));
    EXPECT_FALSE(seen->cancelled());
  }
  ASSERT_TRUE(Call(kForward, "x").ok());
  absl::MutexLock lock(&mutex);
  EXPECT_EQ(seen->deadline(), absl::InfiniteFuture());
  EXPECT_EQ(seen->traceparent(), "");
}

TEST_F(GrpcServerTest, ErrorsKeepCodeAndMessage) {
  ServeUnary([](Frame, const CallContextPtr&, UnaryResponder respond) {
    respond(absl::FailedPreconditionError("layer 3: not held; route anew"));
    respond(Frame("ignored, as there was an answer"));
  });
  EXPECT_EQ(Call(kForward, "x").status(),
            absl::FailedPreconditionError("layer 3: not held; route anew"));
}

TEST_F(GrpcServerTest, MetadataOverTheLimitFailsItsCall) {
  ServeEcho();
  CallOptions options;
  options.metadata = {{"much", std::string(60 << 10, 'm')}};
  EXPECT_TRUE(Call(kForward, "x", options).ok());
  options.metadata = {{"much", std::string(70 << 10, 'm')}};
  const absl::Status status = Call(kForward, "x", options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("limit is 65536"));
  StreamRecorder recorder;
  const auto stream = Client().OpenStream(kForwardStream, options, recorder.callbacks());
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(GrpcServerTest, DroppedRequestIsAnsweredWithInternal) {
  ServeUnary([](Frame, const CallContextPtr&, UnaryResponder) {});
  EXPECT_EQ(Call(kForward, "x").status().code(), absl::StatusCode::kInternal);
}

TEST_F(GrpcServerTest, MessageOverTheLimitFailsAloneAndTheServerGoesOn) {
  ServeEcho();
  const std::string over(kMessageLimit + 1, 'x');
  EXPECT_EQ(Call(kForward, over).status().code(), absl::StatusCode::kResourceExhausted);
  const std::string most(kMessageLimit, 'x');
  const absl::StatusOr<Frame> answer = Call(kForward, most);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->size(), kMessageLimit);

  StreamRecorder other;
  const auto healthy = Client().OpenStream(kForwardStream, {}, other.callbacks());
  StreamRecorder recorder;
  const auto stream = Client().OpenStream(kForwardStream, {}, recorder.callbacks());
  ASSERT_TRUE(stream->Send(Frame(over)).ok());
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(healthy->Send(Frame("still here")).ok());
  EXPECT_TRUE(other.AwaitFrames(1));
}

TEST_F(GrpcServerTest, AnswerOverTheLimitIsAnError) {
  ServeUnary([](Frame, const CallContextPtr&, UnaryResponder respond) {
    respond(Frame(std::string(kMessageLimit + 1, 'x')));
  });
  const absl::Status status = Call(kForward, "x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(kMessageLimit)));
}

bool AwaitCancelled(const CallContext& context) {
  const absl::Time give_up = Clock::Real()->Now() + kTooLong;
  while (!context.cancelled() && Clock::Real()->Now() < give_up) {
    std::this_thread::yield();
  }
  return context.cancelled();
}

// Serves unary calls that are answered when a test likes, one at a time.
class WaitingCallTest : public GrpcServerTest {
 protected:
  WaitingCallTest() {
    ServeUnary([this](Frame, const CallContextPtr& context, UnaryResponder respond) {
      context_ = context;
      respond_ = std::move(respond);
      arrived_.Notify();
    });
  }
  ~WaitingCallTest() override { Shutdown(absl::ZeroDuration()); }

  absl::Notification arrived_;
  // Set when a call has arrived.
  CallContextPtr context_;
  UnaryResponder respond_;
};

TEST_F(WaitingCallTest, CancelledTellsThatTheCallerHasGone) {
  UnaryRecorder recorder;
  const auto call = Client().UnaryCall(kForward, Frame("x"), {}, recorder.done());
  arrived_.WaitForNotification();
  EXPECT_FALSE(context_->cancelled());
  call->Cancel();
  EXPECT_EQ(recorder.Await().status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(AwaitCancelled(*context_));
  respond_(Frame("too late"));
}

TEST_F(WaitingCallTest, CancelledTellsThatTheDeadlineHasPassed) {
  UnaryRecorder recorder;
  CallOptions options;
  options.deadline = Clock::Real()->Now() + absl::Milliseconds(200);
  const auto call = Client().UnaryCall(kForward, Frame("x"), options, recorder.done());
  if (arrived_.WaitForNotificationWithTimeout(absl::Seconds(1))) {
    EXPECT_TRUE(AwaitCancelled(*context_));
  }
  EXPECT_EQ(recorder.Await().status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(WaitingCallTest, CancelledTellsThatTheServerHasEndedTheCall) {
  UnaryRecorder recorder;
  const auto call = Client().UnaryCall(kForward, Frame("x"), {}, recorder.done());
  arrived_.WaitForNotification();
  Shutdown(absl::ZeroDuration());
  EXPECT_TRUE(context_->cancelled());
  EXPECT_EQ(recorder.Await().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(WaitingCallTest, AnAnsweredCallIsNotCancelled) {
  UnaryRecorder recorder;
  const auto call = Client().UnaryCall(kForward, Frame("x"), {}, recorder.done());
  arrived_.WaitForNotification();
  respond_(Frame("here"));
  EXPECT_TRUE(recorder.Await().ok());
  Shutdown(absl::InfiniteDuration());  // By then all of the call is over.
  EXPECT_FALSE(context_->cancelled());
}

TEST_F(GrpcServerTest, AStreamHasAContextThatTellsWhenItsClientHasGone) {
  absl::Notification opened;
  CallContextPtr seen;
  std::shared_ptr<FrameSink> sink;
  ServeStreams([&](std::shared_ptr<FrameSink> replies, const CallContextPtr& context) {
    seen = context;
    sink = replies;
    opened.Notify();
    return std::make_unique<EchoHandler>(std::move(replies));
  });
  CallOptions options;
  options.metadata = {{"traceparent", "00-trace"}};
  StreamRecorder recorder;
  const auto stream = Client().OpenStream(kForwardStream, options, recorder.callbacks());
  opened.WaitForNotification();
  EXPECT_EQ(seen->deadline(), absl::InfiniteFuture());
  EXPECT_EQ(seen->traceparent(), "00-trace");
  EXPECT_THAT(seen->peer(), HasSubstr("127.0.0.1"));
  stream->CloseSend();  // It still waits for answers.
  ASSERT_TRUE(sink->Send(Frame("one")).ok());
  ASSERT_TRUE(recorder.AwaitFrames(1));
  EXPECT_FALSE(seen->cancelled());
  stream->Cancel();
  EXPECT_TRUE(AwaitCancelled(*seen));
  sink = nullptr;
}

TEST_F(GrpcServerTest, DeadlineOfTheCallerHolds) {
  UnaryResponder kept;
  ServeUnary(
      [&](Frame, const CallContextPtr&, UnaryResponder respond) { kept = std::move(respond); });
  CallOptions options;
  options.deadline = Clock::Real()->Now() + absl::Milliseconds(50);
  EXPECT_EQ(Call(kForward, "x", options).status().code(), absl::StatusCode::kDeadlineExceeded);
  options.deadline = Clock::Real()->Now() - absl::Seconds(1);
  EXPECT_EQ(Call(kForward, "x", options).status().code(), absl::StatusCode::kDeadlineExceeded);
  Shutdown(absl::ZeroDuration());  // A handler may still be running.
}

TEST_F(GrpcServerTest, ReaderThatNeverReadsBreaksItsStreamOnly) {
  absl::Mutex mutex;
  std::vector<std::shared_ptr<FrameSink>> sinks;
  ServeStreams(
      [&](std::shared_ptr<FrameSink> sink, const CallContextPtr&) {
        absl::MutexLock lock(&mutex);
        sinks.push_back(sink);
        return std::make_unique<EchoHandler>(std::move(sink));
      },
      /*send_queue_bytes=*/1 << 20);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoSeconds(kTooLong));
  const auto stub = Stub();
  const auto lazy = stub->ForwardStream(&context);
  lazy->WaitForInitialMetadata();
  std::shared_ptr<FrameSink> sink;
  {
    absl::MutexLock lock(&mutex);
    ASSERT_EQ(sinks.size(), 1u);
    sink = sinks[0];
    sinks.clear();
  }
  absl::Status status;
  for (int i = 0; i < 4096 && status.ok(); ++i) {
    status = sink->Send(Frame(std::string(64 << 10, 'x')));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(sink->Send(Frame("x")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sink->Send(Frame(std::string(kMessageLimit + 1, 'x'))).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Call(kForward, "x").ok());
  context.TryCancel();
}

TEST_F(GrpcServerTest, StreamOfAKilledClientIsCleanedUp) {
  absl::Notification gone;
  struct Watched final : StreamHandler {
    explicit Watched(absl::Notification* notification) : notification_(notification) {}
    ~Watched() override { notification_->Notify(); }
    void OnFrame(Frame) override {}
    absl::Notification* const notification_;
  };
  ServeStreams([&](std::shared_ptr<FrameSink>, const CallContextPtr&) {
    return std::make_unique<Watched>(&gone);
  });
  StreamRecorder recorder;
  const auto stream = Client().OpenStream(kForwardStream, {}, recorder.callbacks());
  ASSERT_TRUE(stream->Send(Frame(std::string(100'000, 'x'))).ok());
  ASSERT_TRUE(recorder.AwaitOpen());
  stream->Cancel();
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(gone.WaitForNotificationWithTimeout(kTooLong));
  EXPECT_EQ(stream->Send(Frame("x")).code(), absl::StatusCode::kUnavailable);
}

TEST_F(GrpcServerTest, CloseSendEndsTheStreamInGoodOrder) {
  ServeEcho();
  StreamRecorder recorder;
  const auto stream = Client(kMessageLimit).OpenStream(kForwardStream, {}, recorder.callbacks());
  ASSERT_TRUE(stream->Send(Frame("one")).ok());
  ASSERT_TRUE(stream->Send(Frame()).ok());
  EXPECT_EQ(stream->Send(Frame(std::string(kMessageLimit + 1, 'x'))).code(),
            absl::StatusCode::kInvalidArgument);
  stream->CloseSend();
  const absl::Status after = stream->Send(Frame("two"));
  EXPECT_TRUE(absl::IsFailedPrecondition(after) || absl::IsUnavailable(after)) << after;
  EXPECT_TRUE(recorder.AwaitClosed().ok());
  EXPECT_THAT(recorder.frames(), testing::ElementsAre("one", ""));
}

// A stream whose callback pauses reading at each frame.
class PausedStreamTest : public GrpcServerTest {
 protected:
  void SetUp() override {
    ServeStreams([this](std::shared_ptr<FrameSink> replies, const CallContextPtr&) {
      sink_ = replies;
      opened_.Notify();
      return std::make_unique<EchoHandler>(std::move(replies));
    });
    StreamCallbacks callbacks = recorder_.callbacks();
    callbacks.on_frame = [this, record = callbacks.on_frame](Frame frame) {
      stream_->PauseReading();
      record(std::move(frame));
    };
    stream_ = Client().OpenStream(kForwardStream, {}, std::move(callbacks));
    opened_.WaitForNotification();
    ASSERT_TRUE(stream_->Send(Frame("first")).ok());
    ASSERT_TRUE(recorder_.AwaitFrames(1));
  }

  StreamRecorder recorder_;
  absl::Notification opened_;
  std::shared_ptr<FrameSink> sink_;
  std::shared_ptr<ClientStream> stream_;
};

TEST_F(PausedStreamTest, FramesWaitForTheNextSend) {
  ASSERT_TRUE(sink_->Send(Frame("unasked")).ok());
  ASSERT_TRUE(Call(kForward, "by the same thread").ok());
  EXPECT_THAT(recorder_.frames(), testing::ElementsAre("first"));
  ASSERT_TRUE(stream_->Send(Frame("second")).ok());
  ASSERT_TRUE(recorder_.AwaitFrames(2));
  stream_->ResumeReading();
  ASSERT_TRUE(recorder_.AwaitFrames(3));
  EXPECT_THAT(recorder_.frames(), testing::ElementsAre("first", "unasked", "second"));
  stream_->CloseSend();
  sink_ = nullptr;
  EXPECT_TRUE(recorder_.AwaitClosed().ok());
}

TEST_F(PausedStreamTest, CloseSendHearsTheEnd) {
  sink_ = nullptr;
  stream_->CloseSend();
  EXPECT_TRUE(recorder_.AwaitClosed().ok());
}

TEST_F(PausedStreamTest, CancelEndsIt) {
  stream_->Cancel();
  EXPECT_TRUE(absl::IsCancelled(recorder_.AwaitClosed()));
  EXPECT_TRUE(absl::IsUnavailable(stream_->Send(Frame("late"))));
}

TEST_F(PausedStreamTest, ASendFindsThatTheServerHasGone) {
  sink_ = nullptr;
  Shutdown(absl::ZeroDuration());
  (void)stream_->Send(Frame("lost"));  // May be refused already.
  EXPECT_FALSE(recorder_.AwaitClosed().ok());
}

TEST_F(GrpcServerTest, HealthAndReflectionAnswer) {
  ServeEcho();
  const std::string check = "/grpc.health.v1.Health/Check";
  EXPECT_EQ(Call(check, "")->Flatten(), std::string("\x08\x01"));  // SERVING
  server_->SetServing("", false);
  EXPECT_EQ(Call(check, "")->Flatten(), std::string("\x08\x02"));  // NOT_SERVING
  const std::string named = "\x0a\x06router";
  EXPECT_EQ(Call(check, named).status().code(), absl::StatusCode::kNotFound);
  server_->SetServing("router", true);
  EXPECT_EQ(Call(check, named)->Flatten(), std::string("\x08\x01"));
  EXPECT_EQ(Call(check, "\x0a\x04live")->Flatten(), std::string("\x08\x01"));
  // A map of responses by name.
  EXPECT_THAT(Call("/grpc.health.v1.Health/List", "")->Flatten(),
              testing::AllOf(HasSubstr(std::string("\x0a\x00\x12\x02\x08\x02", 6)),
                             HasSubstr("\x0a\x04live\x12\x02\x08\x01"),
                             HasSubstr("\x0a\x05ready\x12\x02\x08\x01"),
                             HasSubstr("\x0a\x06router\x12\x02\x08\x01")));
}

TEST_F(GrpcServerTest, HealthIsWatched) {
  ServeEcho();
  StreamRecorder recorder;
  const auto watch = Client().OpenStream("/grpc.health.v1.Health/Watch", {}, recorder.callbacks());
  ASSERT_TRUE(watch->Send(Frame(std::string("\x0a\x06router"))).ok());
  watch->CloseSend();
  ASSERT_TRUE(recorder.AwaitFrames(1));
  server_->SetServing("router", true);
  server_->SetServing("router", true);  // No change, no answer.
  server_->SetServing("another", true);
  server_->SetServing("router", false);
  ASSERT_TRUE(recorder.AwaitFrames(3));
  EXPECT_THAT(recorder.frames(),  // SERVICE_UNKNOWN, SERVING, NOT_SERVING
              testing::ElementsAre("\x08\x03", "\x08\x01", "\x08\x02"));
  server_->SetServing("router", true);
  server_->Shutdown(kTooLong);
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(recorder.frames().back(), "\x08\x02");
}

TEST_F(GrpcServerTest, ReflectionTellsServicesAndFiles) {
  ServeEcho();
  for (const std::string method :
       {kReflection, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}) {
    StreamRecorder recorder;
    const auto reflection = Client().OpenStream(method, {}, recorder.callbacks());
    const std::string symbol = "expertmesh.v1.ForwardRequest";
    ASSERT_TRUE(reflection->Send(Frame(std::string("\x3a\x01*"))).ok());  // list_services
    ASSERT_TRUE(
        reflection->Send(Frame("\x22" + std::string(1, char(symbol.size())) + symbol)).ok());
    ASSERT_TRUE(reflection->Send(Frame(std::string("\x1a\x04none"))).ok());  // file_by_filename
    ASSERT_TRUE(recorder.AwaitFrames(3));
    EXPECT_THAT(
        recorder.frames()[0],
        testing::AllOf(HasSubstr("expertmesh.v1.Router"), HasSubstr("expertmesh.v1.Control"),
                       HasSubstr("grpc.health.v1.Health"),
                       HasSubstr("grpc.reflection.v1.ServerReflection"),
                       HasSubstr("grpc.reflection.v1alpha.ServerReflection")));
    // The file itself and what it imports.
    EXPECT_THAT(recorder.frames()[1], testing::AllOf(HasSubstr("expertmesh/v1/router.proto"),
                                                     HasSubstr("expertmesh/v1/tensor.proto"),
                                                     HasSubstr("hiddenStates")));  // JSON's name
    EXPECT_THAT(recorder.frames()[2], HasSubstr("not known here: none"));
    // What errors carry, and reflection itself, under the names that tools look for.
    size_t frames = 3;
    for (const auto& [name, file] : std::vector<std::pair<std::string, std::string>>{
             {"google.rpc.ErrorInfo", "google/rpc/error_details.proto"},
             {"google.rpc.BadRequest.FieldViolation", "google/rpc/error_details.proto"},
             {"grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"},
             {"grpc.reflection.v1alpha.ServerReflection",
              "grpc/reflection/v1alpha/reflection.proto"}}) {
      ASSERT_TRUE(reflection->Send(Frame("\x22" + std::string(1, char(name.size())) + name)).ok());
      ASSERT_TRUE(recorder.AwaitFrames(++frames));
      EXPECT_THAT(recorder.frames().back(), HasSubstr(file)) << name;
    }
    reflection->CloseSend();
    EXPECT_TRUE(recorder.AwaitClosed().ok());
  }
}

TEST_F(GrpcServerTest, BytesThatAreNoRequestAreRefused) {
  ServeEcho();
  const std::string nonsense = "\xff\xff";
  EXPECT_EQ(Call(kDescribeModel, nonsense).status().code(), absl::StatusCode::kInvalidArgument);
  StreamRecorder recorder;
  const auto stream = Client().OpenStream(kReflection, {}, recorder.callbacks());
  ASSERT_TRUE(stream->Send(Frame(nonsense)).ok());
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(GrpcServerTest, CallsInAndOutShareOneThread) {
  GrpcRuntime runtime(1);
  const auto thread_of = [](std::atomic<std::thread::id>* id) { *id = std::this_thread::get_id(); };
  std::atomic<std::thread::id> in, out;
  GrpcServerSpec spec;
  spec.address = "127.0.0.1:0";
  spec.runtime = &runtime;
  spec.unary = {{kForward, [&](Frame request, const CallContextPtr&, UnaryResponder respond) {
                   thread_of(&in);
                   respond(std::move(request));
                 }}};
  auto server = GrpcServer::Start(std::move(spec));
  ASSERT_TRUE(server.ok()) << server.status();
  {
    GrpcClient client(&runtime, "127.0.0.1:" + std::to_string((*server)->port()), {});
    UnaryRecorder recorder;
    const auto done = recorder.done();
    CallOptions options;
    options.wait_for_ready = true;
    client.UnaryCall(kForward, Frame("x"), options, [&](absl::StatusOr<Frame> answer) {
      thread_of(&out);
      done(std::move(answer));
    });
    EXPECT_TRUE(recorder.Await().ok());
  }
  EXPECT_EQ(in.load(), out.load());
  EXPECT_NE(in.load(), std::this_thread::get_id());
  (*server)->Shutdown(absl::ZeroDuration());
}

TEST_F(GrpcServerTest, PortInUseIsNamed) {
  ServeEcho();
  GrpcServerSpec spec;
  spec.address = address();
  const absl::Status status = GrpcServer::Start(std::move(spec)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(address()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("Address already in use"));
  EXPECT_TRUE(Call(kForward, "x").ok());
}

TEST_F(GrpcServerTest, AddressThatMakesNoSenseIsAnError) {
  for (const std::string address : {"", "nonsense", "256.0.0.1:0", "127.0.0.1:99999"}) {
    GrpcServerSpec spec;
    spec.address = address;
    const absl::Status status = GrpcServer::Start(std::move(spec)).status();
    EXPECT_FALSE(status.ok()) << address;
    EXPECT_THAT(std::string(status.message()), HasSubstr(address));
  }
}

TEST_F(GrpcServerTest, ShutdownLetsAcceptedWorkFinish) {
  absl::Notification arrived;
  std::shared_ptr<FrameSink> working;
  struct Keeps final : StreamHandler {
    Keeps(std::shared_ptr<FrameSink> replies, std::shared_ptr<FrameSink>* out,
          absl::Notification* notification)
        : sink(std::move(replies)), keep(out), arrived(notification) {}
    void OnFrame(Frame) override {
      *keep = sink;
      arrived->Notify();
    }
    std::shared_ptr<FrameSink> sink;
    std::shared_ptr<FrameSink>* keep;
    absl::Notification* arrived;
  };
  ServeStreams([&](std::shared_ptr<FrameSink> sink, const CallContextPtr&) {
    return std::make_unique<Keeps>(std::move(sink), &working, &arrived);
  });
  StreamRecorder recorder;
  const auto stream = Client().OpenStream(kForwardStream, {}, recorder.callbacks());
  ASSERT_TRUE(stream->Send(Frame("request")).ok());
  arrived.WaitForNotification();
  std::thread stopping([&] { server_->Shutdown(kTooLong); });
  // While the server shuts down, new calls fail.
  const absl::Time give_up = Clock::Real()->Now() + kTooLong;
  while (Call(kForward, "x").ok() && Clock::Real()->Now() < give_up) {
  }
  // CANCELLED: one that was on its way when the server stopped accepting.
  EXPECT_THAT(Call(kForward, "x").status().code(),
              testing::AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kCancelled));
  ASSERT_TRUE(working->Send(Frame("answer")).ok());
  working.reset();
  stopping.join();
  EXPECT_LT(Clock::Real()->Now(), give_up);
  EXPECT_EQ(recorder.AwaitClosed().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(recorder.frames(), testing::ElementsAre("answer"));
}

TEST_F(GrpcServerTest, ShutdownIsBoundedWhateverHandlersKeep) {
  absl::Mutex mutex;
  std::vector<std::shared_ptr<FrameSink>> sinks;
  std::vector<UnaryResponder> responders;
  Serve(
      [&](Frame, const CallContextPtr&, UnaryResponder respond) {
        absl::MutexLock lock(&mutex);
        responders.push_back(std::move(respond));
      },
      [&](std::shared_ptr<FrameSink> sink, const CallContextPtr&) {
        absl::MutexLock lock(&mutex);
        sinks.push_back(sink);
        return std::make_unique<EchoHandler>(std::move(sink));
      });
  StreamRecorder streams[3];
  std::vector<std::shared_ptr<ClientStream>> opened;
  for (StreamRecorder& stream : streams) {
    opened.push_back(Client().OpenStream(kForwardStream, {}, stream.callbacks()));
    ASSERT_TRUE(stream.AwaitOpen());
  }
  UnaryRecorder unary;
  Client().UnaryCall(kForward, Frame("x"), {}, unary.done());
  const auto called = [&] { return responders.size() == 1; };
  {
    absl::MutexLock lock(&mutex);
    ASSERT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&called), kTooLong));
  }
  const absl::Time begin = Clock::Real()->Now();
  server_->Shutdown(absl::Milliseconds(20));
  EXPECT_LT(Clock::Real()->Now() - begin, kTooLong);
  for (StreamRecorder& stream : streams) {
    EXPECT_FALSE(stream.AwaitClosed().ok());
  }
  EXPECT_FALSE(unary.Await().ok());
  server_.reset();
  // What handlers kept does no harm.
  absl::MutexLock lock(&mutex);
  EXPECT_EQ(sinks[0]->Send(Frame("late")).code(), absl::StatusCode::kUnavailable);
  responders[0](Frame("late"));
}

TEST_F(GrpcServerTest, ShutdownTwiceIsOnce) {
  ServeEcho();
  ASSERT_TRUE(Call(kForward, "x").ok());
  std::thread other([&] { server_->Shutdown(absl::ZeroDuration()); });
  server_->Shutdown(absl::ZeroDuration());
  other.join();
  EXPECT_EQ(Call(kForward, "x").status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(GrpcServerTest, ManyCallsFromManyThreads) {
  ServeEcho();
  GrpcClient client = Client();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::vector<UnaryRecorder> recorders(100);
      for (size_t i = 0; i < recorders.size(); ++i) {
        client.UnaryCall(kForward, Frame(std::to_string(thread) + ":" + std::to_string(i)), {},
                         recorders[i].done());
      }
      for (size_t i = 0; i < recorders.size(); ++i) {
        const absl::StatusOr<Frame> answer = recorders[i].Await();
        ASSERT_TRUE(answer.ok()) << answer.status();
        EXPECT_EQ(answer->Flatten(), std::to_string(thread) + ":" + std::to_string(i));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(GrpcClientTest, NobodyThereIsUnavailable) {
  GrpcRuntime runtime;
  GrpcClient client(&runtime, "127.0.0.1:1", {});
  UnaryRecorder unary;
  client.UnaryCall(kForward, Frame("x"), {}, unary.done());
  EXPECT_EQ(unary.Await().status().code(), absl::StatusCode::kUnavailable);
  StreamRecorder stream;
  const auto opened = client.OpenStream(kForwardStream, {}, stream.callbacks());
  EXPECT_EQ(stream.AwaitClosed().code(), absl::StatusCode::kUnavailable);
}

TEST_F(GrpcServerTest, RuntimeEndsCallsUnderWayAndTheirCallbacksRunOnce) {
  std::vector<UnaryResponder> kept;
  absl::Notification arrived;
  ServeUnary([&](Frame, const CallContextPtr&, UnaryResponder respond) {
    kept.push_back(std::move(respond));
    arrived.Notify();
  });
  UnaryRecorder unary;
  UnaryRecorder refused;
  StreamRecorder stream;
  std::shared_ptr<ClientStream> opened;
  {
    GrpcRuntime runtime;
    GrpcClient client(&runtime, address(), {});
    client.UnaryCall(kForward, Frame("x"), {}, [&](absl::StatusOr<Frame> answer) {
      // A call from the last callback finds the runtime closed.
      GrpcClient(&runtime, address(), {}).UnaryCall(kForward, Frame("y"), {}, refused.done());
      unary.done()(std::move(answer));
    });
    opened = client.OpenStream(kForwardStream, {}, stream.callbacks());
    arrived.WaitForNotification();
    ASSERT_TRUE(stream.AwaitOpen());
  }
  EXPECT_EQ(unary.Await().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(refused.Await().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(stream.AwaitClosed().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(opened->Send(Frame("x")).code(), absl::StatusCode::kUnavailable);
  opened->Cancel();
}

}  // namespace
}  // namespace expertmesh::net
