// What the client does when a request fails or a stream ends: which are sent again, how often, and
// that each is answered once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "client/cpp/expertmesh/client.h"
#include "client/cpp/library/forward_stream.h"
#include "client/cpp/library/retry.h"
#include "common/base/clock.h"
#include "common/net/grpc_server.h"
#include "common/wire/error_reason.h"
#include "common/wire/status.h"
#include "expertmesh/v1/control.pb.h"
#include "expertmesh/v1/router.pb.h"
#include "tests/support/scripted_watch.h"

namespace expertmesh::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr absl::Duration kTooLong = absl::Seconds(60);

Matrix Row() { return Matrix::Take(1, 2, {1, 2}); }

std::vector<v1::ErrorReason> AllReasons() {
  std::vector<v1::ErrorReason> reasons;
  const google::protobuf::EnumDescriptor* all = v1::ErrorReason_descriptor();
  for (int i = 0; i < all->value_count(); ++i) {
    reasons.push_back(static_cast<v1::ErrorReason>(all->value(i)->number()));
  }
  return reasons;
}

TEST(RetryPolicyTest, FollowsTheTableOfTheContract) {
  for (const v1::ErrorReason reason : AllReasons()) {
    if (reason == v1::ERROR_REASON_UNSPECIFIED) {
      continue;
    }
    RetryPolicy policy(3);
    const bool again = PolicyOf(reason).retry() != v1::RETRY_NEVER;
    const absl::Status error = ErrorOf(reason, "why");
    EXPECT_EQ(policy.After(error, 1).has_value(), again) << NameOf(reason);
    EXPECT_EQ(policy.After(error, 2).has_value(), again) << NameOf(reason);
    EXPECT_FALSE(policy.After(error, 3).has_value()) << NameOf(reason);
  }
}

TEST(RetryPolicyTest, WithoutAReasonOnlyALostCallIsTriedAgain) {
  RetryPolicy policy(9);
  for (int code = 1; code <= 16; ++code) {
    const absl::Status error(static_cast<absl::StatusCode>(code), "why");
    const bool lost = absl::IsUnavailable(error) || absl::IsInternal(error) ||
                      absl::IsUnknown(error) || absl::IsCancelled(error);
    EXPECT_EQ(policy.After(error, 1).has_value(), lost) << error;
  }
}

TEST(RetryPolicyTest, PausesGrowFromWhatTheRouterSays) {
  RetryPolicy policy(99);
  const absl::Status full = ErrorOf(v1::ERROR_REASON_QUEUE_FULL, "full");
  const absl::Duration said = DetailsOf(full).retry_delay;
  ASSERT_GT(said, absl::ZeroDuration());
  for (uint32_t attempts = 1; attempts < 6; ++attempts) {
    const absl::Duration pause = *policy.After(full, attempts);
    EXPECT_GE(pause, 0.8 * said * (1 << (attempts - 1)));
    EXPECT_LE(pause, 1.2 * said * (1 << (attempts - 1)));
  }
  EXPECT_LE(*policy.After(full, 90), absl::Seconds(6));
  const absl::Status stopping = ErrorOf(v1::ERROR_REASON_ROUTER_STOPPING, "stopping");
  EXPECT_EQ(*policy.After(stopping, 1), absl::ZeroDuration());
  EXPECT_GT(*policy.After(stopping, 2), absl::ZeroDuration());
}

TEST(RetryPolicyTest, RetriesAreBoughtWithAnswers) {
  RetryPolicy policy(2);
  const absl::Status error = absl::UnavailableError("gone");
  int retries = 0;
  while (retries < 100'000 && policy.After(error, 1).has_value()) {
    ++retries;
  }
  EXPECT_EQ(retries, 1000);
  for (int answers = 0; answers < 5; ++answers) {
    policy.Answered();
  }
  EXPECT_TRUE(policy.After(error, 1).has_value());
  EXPECT_FALSE(policy.After(error, 1).has_value());
}

TEST(RetryTimersTest, EveryWaitEndsOnce) {
  TimerQueue timers(Clock::Real());
  RetryTimers waits(&timers);
  absl::Notification fired;
  waits.Wait(absl::ZeroDuration(), [&fired](const absl::Status& status) {
    EXPECT_TRUE(status.ok());
    fired.Notify();
  });
  EXPECT_TRUE(fired.WaitForNotificationWithTimeout(kTooLong));
  std::vector<absl::Status> ends;
  const auto note = [&ends](const absl::Status& status) { ends.push_back(status); };
  waits.Wait(absl::Hours(1), note);
  EXPECT_TRUE(ends.empty());
  waits.Close();
  EXPECT_EQ(ends.size(), 1u);
  waits.Wait(absl::ZeroDuration(), note);
  EXPECT_EQ(ends.size(), 2u);
  for (const absl::Status& end : ends) {
    EXPECT_EQ(end.code(), absl::StatusCode::kCancelled);
  }
}

// A router whose every answer the test decides.
class RetryTest : public testing::Test {
 protected:
  // `unary` gets the number of the attempt, from 1.
  void Serve(std::function<absl::Status(int)> unary = nullptr) {
    net::GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.unary = {
        {"/expertmesh.v1.Router/Forward",
         [this, unary](const Frame& frame, const CallContextPtr&, net::UnaryResponder respond) {
           absl::MutexLock lock(&mutex_);
           const absl::Status status = unary(++unary_calls_);
           v1::ForwardRequest request;
           ASSERT_TRUE(request.ParseFromString(frame.Flatten()));
           respond(status.ok() ? Echo(request) : absl::StatusOr<Frame>(status));
         }}};
    spec.streams = {{"/expertmesh.v1.Router/ForwardStream",
                     [this](std::shared_ptr<net::ServerStreamSink> sink, const CallContextPtr&) {
                       absl::MutexLock lock(&mutex_);
                       sink_ = std::move(sink);
                       ++streams_;
                       return std::make_unique<Recorder>(this);
                     }}};
    spec.streams.push_back(net::ScriptedWatch(
        "/expertmesh.v1.Control/WatchTopology",
        [this](net::ServerStreamSink& watcher) -> absl::Status {
          v1::WatchTopologyResponse response;
          response.mutable_topology()->set_epoch(static_cast<uint64_t>(++watches_));
          EXPECT_TRUE(net::SendMessage(watcher, response));
          if (!net::SendMessage(watcher, response)) {  // A heartbeat.
            return absl::CancelledError("the caller has seen enough");
          }
          return ErrorOf(v1::ERROR_REASON_ROUTER_STOPPING, "stopping");
        }));
    auto server = net::GrpcServer::Start(std::move(spec));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = *Client::Connect("127.0.0.1:" + std::to_string(server_->port()));
  }
  ~RetryTest() override {
    absl::MutexLock lock(&mutex_);
    sink_ = nullptr;
  }

  static Frame Echo(const v1::ForwardRequest& request) {
    v1::ForwardResponse response;
    response.set_request_id(request.request_id());
    *response.mutable_output() = request.hidden_states();
    return Frame(response.SerializeAsString());
  }

  // The next request of any stream.
  v1::ForwardRequest Next() {
    absl::MutexLock lock(&mutex_);
    const auto some = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !received_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&some), kTooLong)) {
      ADD_FAILURE() << "no request came";
      return {};
    }
    v1::ForwardRequest request = std::move(received_.front());
    received_.pop_front();
    return request;
  }
  void Answer(const v1::ForwardRequest& request) {
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(sink_->Send(Echo(request)).ok());
  }
  void Refuse(const v1::ForwardRequest& request, const absl::Status& why) {
    v1::ForwardResponse response;
    response.set_request_id(request.request_id());
    *response.mutable_status() = ToWire(why);
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(sink_->Send(Frame(response.SerializeAsString())).ok());
  }
  void EndStream(const absl::Status& why) {
    std::shared_ptr<net::ServerStreamSink> sink;
    absl::MutexLock lock(&mutex_);
    sink = std::move(sink_);
    sink->Fail(why);
  }
  int streams() {
    absl::MutexLock lock(&mutex_);
    return streams_;
  }
  int unary_calls() {
    absl::MutexLock lock(&mutex_);
    return unary_calls_;
  }

  class Recorder final : public StreamHandler {
   public:
    explicit Recorder(RetryTest* test) : test_(test) {}
    void OnFrame(Frame frame) override {
      v1::ForwardRequest request;
      ASSERT_TRUE(request.ParseFromString(frame.Flatten()));
      absl::MutexLock lock(&test_->mutex_);
      test_->received_.push_back(std::move(request));
    }

   private:
    RetryTest* const test_;
  };

  absl::Mutex mutex_;
  std::shared_ptr<net::ServerStreamSink> sink_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::ForwardRequest> received_ ABSL_GUARDED_BY(mutex_);
  int streams_ ABSL_GUARDED_BY(mutex_) = 0;
  int unary_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<int> watches_{0};
  std::unique_ptr<net::GrpcServer> server_;
  std::unique_ptr<Client> client_;
};

// One answer, which must come exactly once.
struct OneAnswer {
  ForwardCallback callback() {
    return [this](const absl::StatusOr<ForwardResult>& result) {
      EXPECT_FALSE(done.HasBeenNotified()) << "answered twice";
      status = result.status();
      done.Notify();
    };
  }
  absl::Status Await() {
    return done.WaitForNotificationWithTimeout(kTooLong) ? status
                                                         : absl::InternalError("no answer");
  }
  absl::Notification done;
  absl::Status status;
};

TEST_F(RetryTest, ACallIsMadeAgainUntilItIsAnswered) {
  Serve([](int attempt) {
    return attempt < 4 ? ErrorOf(v1::ERROR_REASON_ROUTER_STOPPING, "stopping") : absl::OkStatus();
  });
  const auto result = client_->Forward(1, Row());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->output.ToFloats(), ElementsAre(1, 2));
  EXPECT_EQ(unary_calls(), 4);
}

TEST_F(RetryTest, ACallIsMadeOnceWhereNoOtherWouldGoBetter) {
  Serve([](int) { return ErrorOf(v1::ERROR_REASON_INVALID_FIELD, "layer is 9", {{"a", "b"}}); });
  const absl::Status status = client_->Forward(9, Row()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(unary_calls(), 1);
  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.reason, "INVALID_FIELD");
  EXPECT_EQ(details.metadata.at("a"), "b");
}

TEST_F(RetryTest, ACallEndsWithTheLastErrorAfterAllAttempts) {
  Serve([](int attempt) {
    return ErrorOf(v1::ERROR_REASON_QUEUE_FULL, "full " + std::to_string(attempt));
  });
  const absl::Status status = client_->Forward(1, Row()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "full 5");
  EXPECT_EQ(unary_calls(), 5);
}

TEST_F(RetryTest, NoAttemptBeginsAfterTheDeadline) {
  Serve([](int) { return ErrorOf(v1::ERROR_REASON_EXPERTS_MISSING, "missing"); });
  ForwardOptions options;
  options.timeout = absl::Milliseconds(100);  // Less than the pause.
  EXPECT_EQ(client_->Forward(1, Row(), options).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(unary_calls(), 1);
}

TEST_F(RetryTest, AClientThatGoesAnswersWhatWaitsToBeSentAgain) {
  absl::Notification refused;
  Serve([&refused](int) {
    if (!refused.HasBeenNotified()) {
      refused.Notify();
    }
    return ErrorOf(v1::ERROR_REASON_EXPERTS_MISSING, "missing");
  });
  OneAnswer answer;
  client_->ForwardAsync(1, Row(), {}, answer.callback());
  refused.WaitForNotification();
  client_.reset();
  EXPECT_TRUE(answer.done.HasBeenNotified());
  EXPECT_EQ(answer.Await().code(), absl::StatusCode::kCancelled);
}

TEST_F(RetryTest, AStreamThatEndsLosesNoRequest) {
  Serve();
  const auto stream = client_->OpenStream();
  OneAnswer answers[3];
  for (OneAnswer& answer : answers) {
    stream->Send(1, Row(), {}, answer.callback());
  }
  Next();
  const v1::ForwardRequest second = Next();
  Next();
  Answer(second);
  EXPECT_TRUE(answers[1].Await().ok());
  EndStream(ErrorOf(v1::ERROR_REASON_STREAM_AGED, "old"));
  Answer(Next());  // On the new stream.
  Answer(Next());
  EXPECT_TRUE(answers[0].Await().ok());
  EXPECT_TRUE(answers[2].Await().ok());
  EXPECT_EQ(streams(), 2);
  EXPECT_TRUE(stream->status().ok());
}

TEST_F(RetryTest, AStreamThatEndsIdleIsOpenedByTheNextRequest) {
  Serve();
  const auto stream = client_->OpenStream();
  OneAnswer first, second;
  stream->Send(1, Row(), {}, first.callback());
  Answer(Next());
  EXPECT_TRUE(first.Await().ok());
  EndStream(absl::InternalError("a proxy's word for an idle stream"));
  stream->Send(1, Row(), {}, second.callback());
  Answer(Next());
  EXPECT_TRUE(second.Await().ok());
}

TEST_F(RetryTest, AStreamThatWasForbiddenIsNotOpenedAgain) {
  Serve();
  const auto stream = client_->OpenStream();
  OneAnswer answer;
  stream->Send(1, Row(), {}, answer.callback());
  Next();
  EndStream(absl::PermissionDeniedError("not you"));
  const absl::Status status = answer.Await();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not you"));
  EXPECT_FALSE(stream->status().ok());
  EXPECT_EQ(streams(), 1);
}

TEST_F(RetryTest, ARequestThatEndsEveryStreamEndsWithAnError) {
  Serve();
  const auto stream = client_->OpenStream();
  OneAnswer answer;
  stream->Send(1, Row(), {}, answer.callback());
  for (int attempt = 0; attempt < 5; ++attempt) {
    Next();
    EndStream(absl::UnavailableError("gone"));
  }
  EXPECT_EQ(answer.Await().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(streams(), 5);
}

TEST_F(RetryTest, ARequestIsNotSentWithoutEndBesideOthersThatAreAnswered) {
  Serve();
  const auto stream = client_->OpenStream();
  OneAnswer unlucky;
  stream->Send(1, Row(), {}, unlucky.callback());
  for (int attempt = 0; attempt < 5; ++attempt) {
    OneAnswer other;
    stream->Send(2, Row(), {}, other.callback());
    for (int i = 0; i < 2; ++i) {
      if (const v1::ForwardRequest request = Next(); request.layer() == 2) {
        Answer(request);
      }
    }
    EXPECT_TRUE(other.Await().ok());
    EndStream(absl::UnavailableError("gone"));
  }
  EXPECT_EQ(unlucky.Await().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(stream->status().ok());
}

TEST_F(RetryTest, ARefusedRequestOfAStreamIsSentAgain) {
  Serve();
  const auto stream = client_->OpenStream();
  OneAnswer answer, wrong;
  stream->Send(1, Row(), {}, answer.callback());
  Refuse(Next(), ErrorOf(v1::ERROR_REASON_QUEUE_FULL, "full"));
  Answer(Next());
  EXPECT_TRUE(answer.Await().ok());
  stream->Send(1, Row(), {}, wrong.callback());
  Refuse(Next(), ErrorOf(v1::ERROR_REASON_INVALID_FIELD, "layer is 1"));
  EXPECT_EQ(wrong.Await().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(wrong.status).reason, "INVALID_FIELD");
}

TEST_F(RetryTest, TheLimitOfAnswersIsToldToTheRouter) {
  Serve();
  const auto stream = client_->OpenStream();
  OneAnswer answer;
  stream->Send(1, Row(), {}, answer.callback());
  const v1::ForwardRequest request = Next();
  EXPECT_EQ(request.max_response_bytes(), ClientOptions().max_message_bytes);
  Answer(request);
  EXPECT_TRUE(answer.Await().ok());
}

TEST_F(RetryTest, ASilentStreamSendsHeartbeats) {
  Serve();
  TimerQueue timers(Clock::Real());
  net::GrpcRuntime runtime;
  net::GrpcClient client(&runtime, "127.0.0.1:" + std::to_string(server_->port()), {});
  RetryPolicy retries(5);
  RetryTimers waits(&timers);
  const auto stream = OpenForwardStream({.client = &client,
                                         .timers = &timers,
                                         .retries = &retries,
                                         .waits = &waits,
                                         .address = "router",
                                         .window_bytes = 1 << 20,
                                         .max_message_bytes = 1 << 20,
                                         .heartbeat_interval = absl::Milliseconds(20)});
  OneAnswer first, second;
  stream->Send(1, Row(), {}, first.callback());
  const v1::ForwardRequest request = Next();
  EXPECT_FALSE(request.heartbeat());
  Answer(request);
  v1::ForwardRequest beat = Next();
  EXPECT_TRUE(beat.heartbeat());
  EXPECT_FALSE(beat.has_hidden_states());
  v1::ForwardResponse answer;
  answer.set_heartbeat(true);
  {
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(sink_->Send(Frame(answer.SerializeAsString())).ok());
  }
  stream->Send(1, Row(), {}, second.callback());
  do {
    beat = Next();
  } while (beat.heartbeat());
  Answer(beat);
  EXPECT_TRUE(second.Await().ok());
  waits.Close();
}

// Asking again would bring the same: it is told, and not taken for a lost call.
TEST_F(RetryTest, AWatchThatCannotBeReadEndsAtOnce) {
  std::atomic<int> calls{0};
  net::GrpcServerSpec spec;
  spec.address = "127.0.0.1:0";
  spec.streams = {{"/expertmesh.v1.Control/WatchTopology",
                   [&calls](std::shared_ptr<net::ServerStreamSink> sink, const CallContextPtr&) {
                     ++calls;
                     struct Nothing final : StreamHandler {
                       void OnFrame(Frame) override {}
                     };
                     sink->Send(Frame(std::string("\xff\xff\xff"))).IgnoreError();
                     return std::make_unique<Nothing>();
                   }}};
  const auto server = net::GrpcServer::Start(std::move(spec));
  ASSERT_TRUE(server.ok()) << server.status();
  const auto client = Client::Connect("127.0.0.1:" + std::to_string((*server)->port()));
  const absl::Status end = (*client)->WatchTopology([](const client::Topology&) { return true; });
  EXPECT_EQ(end.code(), absl::StatusCode::kInternal);
  (*server)->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(calls, 1);
}

TEST_F(RetryTest, AWatchThatEndsGoesOn) {
  Serve();
  std::vector<uint64_t> seen;
  EXPECT_TRUE(client_
                  ->WatchTopology([&seen](const client::Topology& topology) {
                    seen.push_back(topology.epoch);
                    return topology.epoch < 4;
                  })
                  .ok());
  EXPECT_THAT(seen, ElementsAre(1, 2, 3, 4));
}

}  // namespace
}  // namespace expertmesh::client
