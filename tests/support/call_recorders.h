// Callbacks of calls that remember, and a handler that echoes: for tests of GrpcServer and
// GrpcClient.
#ifndef EXPERTMESH_TESTS_SUPPORT_CALL_RECORDERS_H_
#define EXPERTMESH_TESTS_SUPPORT_CALL_RECORDERS_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/net/grpc_client.h"
#include "common/transport/transport.h"
#include "tests/support/too_long.h"

namespace expertmesh::net {

class EchoHandler final : public StreamHandler {
 public:
  explicit EchoHandler(std::shared_ptr<FrameSink> replies) : replies_(std::move(replies)) {}
  void OnFrame(Frame frame) override { replies_->Send(std::move(frame)).IgnoreError(); }

 private:
  const std::shared_ptr<FrameSink> replies_;
};

// Callbacks share what they write to with the recorder, as calls may outlive a test's variables.
class UnaryRecorder {
 public:
  std::function<void(absl::StatusOr<Frame>)> done() {
    return [state = state_](absl::StatusOr<Frame> answer) {
      absl::MutexLock lock(&state->mutex);
      EXPECT_FALSE(state->answer.has_value()) << "answered twice";
      state->answer = std::move(answer);
    };
  }

  absl::StatusOr<Frame> Await() {
    State* const state = state_.get();
    absl::MutexLock lock(&state->mutex);
    const auto answered = [state]()
                              ABSL_NO_THREAD_SAFETY_ANALYSIS { return state->answer.has_value(); };
    if (!state->mutex.AwaitWithTimeout(absl::Condition(&answered), kTooLong)) {
      ADD_FAILURE() << "no answer";
      return absl::InternalError("no answer");
    }
    return *state->answer;
  }

 private:
  struct State {
    absl::Mutex mutex;
    std::optional<absl::StatusOr<Frame>> answer ABSL_GUARDED_BY(mutex);
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

class StreamRecorder {
 public:
  StreamCallbacks callbacks() {
    StreamCallbacks callbacks;
    callbacks.on_open = [state = state_] {
      absl::MutexLock lock(&state->mutex);
      state->open = true;
    };
    callbacks.on_frame = [state = state_](Frame frame) {
      absl::MutexLock lock(&state->mutex);
      EXPECT_FALSE(state->closed.has_value());
      state->frames.push_back(frame.Flatten());
    };
    callbacks.on_closed = [state = state_](const absl::Status& status) {
      absl::MutexLock lock(&state->mutex);
      EXPECT_FALSE(state->closed.has_value()) << "closed twice";
      state->closed = status;
    };
    return callbacks;
  }

  bool AwaitOpen() {
    State* const state = state_.get();
    return Await([state]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return state->open; });
  }
  // False also when the stream ends before.
  bool AwaitFrames(size_t count) {
    State* const state = state_.get();
    Await([state, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return state->frames.size() >= count || state->closed.has_value();
    });
    absl::MutexLock lock(&state->mutex);
    return state->frames.size() >= count;
  }
  absl::Status AwaitClosed() {
    State* const state = state_.get();
    if (!Await([state]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return state->closed.has_value(); })) {
      ADD_FAILURE() << "the stream did not end";
      return absl::InternalError("the stream did not end");
    }
    absl::MutexLock lock(&state->mutex);
    return *state->closed;
  }
  std::vector<std::string> frames() {
    absl::MutexLock lock(&state_->mutex);
    return state_->frames;
  }

 private:
  struct State {
    absl::Mutex mutex;
    bool open ABSL_GUARDED_BY(mutex) = false;
    std::vector<std::string> frames ABSL_GUARDED_BY(mutex);
    std::optional<absl::Status> closed ABSL_GUARDED_BY(mutex);
  };

  template <typename Reached>
  bool Await(const Reached& reached) {
    absl::MutexLock lock(&state_->mutex);
    return state_->mutex.AwaitWithTimeout(absl::Condition(&reached), kTooLong);
  }

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_TESTS_SUPPORT_CALL_RECORDERS_H_
