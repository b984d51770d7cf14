// What a server holds for clients that do not read, and what it holds for all of them.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/base/message_bytes.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_server.h"
#include "common/wire/error_reason.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "tests/support/call_recorders.h"

namespace expertmesh::net {
namespace {

using testing::HasSubstr;

constexpr char kForward[] = "/expertmesh.v1.Router/Forward";
constexpr char kForwardStream[] = "/expertmesh.v1.Router/ForwardStream";
constexpr size_t kMessage = 256 << 10;

using Stream = grpc::ClientReaderWriter<v1::ForwardRequest, v1::ForwardResponse>;

// Counts the frames of all streams.
class Counter {
 public:
  void Add() {
    absl::MutexLock lock(&mutex_);
    ++count_;
  }
  int count() const {
    absl::MutexLock lock(&mutex_);
    return count_;
  }
  bool Await(int count) const {
    absl::MutexLock lock(&mutex_);
    const auto there = [this, count]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return count_ >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&there), kTooLong);
  }

 private:
  mutable absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

class FlowTest : public testing::Test {
 protected:
  // What happens to a request; `sink`: where its answer goes.
  using OnRequest = std::function<void(Frame, const std::shared_ptr<ServerStreamSink>& sink)>;

  struct Handler final : StreamHandler {
    Handler(FlowTest* of, std::shared_ptr<ServerStreamSink> replies)
        : test(of), sink(std::move(replies)) {}
    ~Handler() override { test->ended_.Add(); }
    void OnFrame(Frame frame) override {
      test->received_.Add();
      const size_t held = message_bytes.buffered.load();
      size_t most = test->most_held_.load();
      while (held > most && !test->most_held_.compare_exchange_weak(most, held)) {
      }
      test->on_request_(std::move(frame), sink);
    }
    FlowTest* const test;
    const std::shared_ptr<ServerStreamSink> sink;
  };

  ~FlowTest() override {
    if (server_ != nullptr) {
      server_->Shutdown(absl::ZeroDuration());
    }
  }

  void Serve() {
    spec_.address = "127.0.0.1:0";
    spec_.unary = {{kForward, [this](Frame request, const CallContextPtr&, UnaryResponder respond) {
                      on_unary_(std::move(request), std::move(respond));
                    }}};
    spec_.streams = {{kForwardStream,
                      [this](std::shared_ptr<ServerStreamSink> sink, const CallContextPtr&) {
                        return std::make_unique<Handler>(this, std::move(sink));
                      },
                      /*ages=*/true, answers_each_}};
    auto server = GrpcServer::Start(spec_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }

  // A call that reads when it is told to; gRPC's own windows hold next to nothing.
  std::unique_ptr<Stream> Open(grpc::ClientContext* context) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::Router::NewStub(
        grpc::CreateCustomChannel(address(), grpc::InsecureChannelCredentials(), arguments));
    context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoSeconds(kTooLong));
    return stub_->ForwardStream(context);
  }

  // Sends so many requests, as fast as the server takes them, and closes its side.
  static std::thread Write(Stream* stream, int requests) {
    return std::thread([stream, requests] {
      v1::ForwardRequest request;
      request.mutable_hidden_states()->set_data(std::string(kMessage, 'x'));
      for (int i = 0; i < requests && stream->Write(request); ++i) {
      }
      stream->WritesDone();
    });
  }

  static int ReadAll(Stream* stream) {
    v1::ForwardResponse response;
    int read = 0;
    while (stream->Read(&response)) {
      ++read;
    }
    return read;
  }

  GrpcServerSpec spec_;
  bool answers_each_ = true;
  OnRequest on_request_ = [](Frame frame, const std::shared_ptr<ServerStreamSink>& sink) {
    sink->Send(std::move(frame)).IgnoreError();
  };
  std::function<void(Frame, UnaryResponder)> on_unary_ = [](Frame request, UnaryResponder respond) {
    respond(std::move(request));
  };
  Counter received_;
  Counter ended_;
  std::atomic<size_t> most_held_{0};
  std::unique_ptr<v1::Router::Stub> stub_;
  std::unique_ptr<GrpcServer> server_;
  GrpcRuntime runtime_;
};

// As many requests as the window has room for, more or less.
constexpr int kWindow = 8;

TEST_F(FlowTest, AClientThatDoesNotReadIsHeldBackAndGetsEveryAnswer) {
  spec_.send_queue_bytes = kWindow * kMessage;
  Serve();
  grpc::ClientContext context;
  const auto stream = Open(&context);
  std::thread writer = Write(stream.get(), 200);
  ASSERT_TRUE(received_.Await(kWindow));
  EXPECT_EQ(ReadAll(stream.get()), 200);
  writer.join();
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  // One message may pass the window, and one is the one that arrives.
  EXPECT_LE(most_held_, (kWindow + 2) * (kMessage + 64));
  EXPECT_EQ(message_bytes.buffered, 0u);
}

TEST_F(FlowTest, RequestsThatAreWorkedOnCountWithTheirAnswers) {
  absl::Mutex mutex;
  std::vector<std::function<void()>> waiting;
  on_request_ = [&](Frame frame, const std::shared_ptr<ServerStreamSink>& sink) {
    absl::MutexLock lock(&mutex);
    waiting.push_back([frame, sink] { sink->Send(frame).IgnoreError(); });
  };
  spec_.send_queue_bytes = kWindow * kMessage;
  Serve();
  grpc::ClientContext context;
  const auto stream = Open(&context);
  std::thread writer = Write(stream.get(), 40);
  std::thread reader([&stream] { EXPECT_EQ(ReadAll(stream.get()), 40); });
  for (int answered = 0; answered < 40;) {
    ASSERT_TRUE(received_.Await(std::min(40, answered + kWindow / 2)));
    std::vector<std::function<void()>> now;
    {
      absl::MutexLock lock(&mutex);
      EXPECT_LE(waiting.size(), kWindow);
      now.swap(waiting);
    }
    answered += static_cast<int>(now.size());
    for (const auto& answer : now) {
      answer();
    }
    now.clear();
  }
  writer.join();
  reader.join();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(FlowTest, ACancelledStreamEndsWhileItIsHeldBack) {
  spec_.send_queue_bytes = kWindow * kMessage;
  Serve();
  grpc::ClientContext context;
  const auto stream = Open(&context);
  std::thread writer = Write(stream.get(), 100);
  ASSERT_TRUE(received_.Await(kWindow));
  context.TryCancel();
  writer.join();
  EXPECT_TRUE(ended_.Await(1));
  stream->Finish();
}

TEST_F(FlowTest, AClientThatReadsNothingForTooLongIsToldWhy) {
  spec_.send_queue_bytes = kWindow * kMessage;
  spec_.max_unread_time = absl::Milliseconds(100);
  Serve();
  grpc::ClientContext context;
  const auto stream = Open(&context);
  std::thread writer = Write(stream.get(), 100);
  EXPECT_TRUE(ended_.Await(1));
  EXPECT_LT(ReadAll(stream.get()), 100);
  writer.join();
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("unread"));
}

TEST_F(FlowTest, AStreamThatIsBrokenForItsUnreadAnswersSaysSo) {
  answers_each_ = false;
  spec_.send_queue_bytes = kWindow * kMessage;
  on_request_ = [](Frame frame, const std::shared_ptr<ServerStreamSink>& sink) {
    while (sink->Send(frame).ok()) {
    }
  };
  Serve();
  grpc::ClientContext context;
  const auto stream = Open(&context);
  std::thread writer = Write(stream.get(), 1);
  EXPECT_TRUE(ended_.Await(1));
  EXPECT_LE(ReadAll(stream.get()), 2 * kWindow);
  writer.join();
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("unread"));
}

TEST_F(FlowTest, AllStreamsShareOneBudget) {
  constexpr int kStreams = 12;
  spec_.max_buffered_bytes = 16 * kMessage;
  Serve();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<std::unique_ptr<v1::Router::Stub>> stubs;
  std::vector<std::thread> writers;
  for (int i = 0; i < kStreams; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(Open(contexts.back().get()));
    stubs.push_back(std::move(stub_));
    writers.push_back(Write(streams.back().get(), 20));
  }
  ASSERT_TRUE(received_.Await(kStreams));
  for (const auto& stream : streams) {
    EXPECT_EQ(ReadAll(stream.get()), 20);
    EXPECT_TRUE(stream->Finish().ok());
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  // Even without room each has one request that is worked on and one answer that is sent.
  EXPECT_LE(most_held_, (16 + 2 * kStreams) * (kMessage + 64));
}

TEST_F(FlowTest, AUnaryCallThatFindsNoRoomIsRefused) {
  absl::Mutex mutex;
  UnaryResponder first;
  on_unary_ = [&](Frame request, UnaryResponder respond) {
    absl::MutexLock lock(&mutex);
    if (first == nullptr) {
      first = std::move(respond);
      received_.Add();
    } else {
      respond(std::move(request));
    }
  };
  spec_.max_buffered_bytes = 2 * kMessage;
  Serve();
  GrpcClient client(&runtime_, address(), {});
  // The first has room, however large.
  UnaryRecorder large;
  client.UnaryCall(kForward, Frame(std::string(3 * kMessage, 'x')), {}, large.done());
  ASSERT_TRUE(received_.Await(1));
  UnaryRecorder refused;
  client.UnaryCall(kForward, Frame(std::string(kMessage, 'x')), {}, refused.done());
  const absl::Status status = refused.Await().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_QUEUE_FULL) << status;
  // What is small has room, too.
  UnaryRecorder small;
  client.UnaryCall(kForward, Frame("x"), {}, small.done());
  EXPECT_TRUE(small.Await().ok());
  {
    absl::MutexLock lock(&mutex);
    first(Frame("x"));
  }
  EXPECT_TRUE(large.Await().ok());
}

}  // namespace
}  // namespace expertmesh::net
