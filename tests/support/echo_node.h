// A node that echoes frames, whatever they are: for tests of transports.
#ifndef EXPERTMESH_TESTS_SUPPORT_ECHO_NODE_H_
#define EXPERTMESH_TESTS_SUPPORT_ECHO_NODE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "tests/support/fake_endpoint.h"
#include "tests/support/too_long.h"

namespace expertmesh {

class EchoNode final : public FakeEndpoint {
 public:
  explicit EchoNode(const std::string& node_id = "fake")
      : FakeEndpoint(DescriptionOf(node_id, v1::NODE_STATE_READY)) {}

  // As a change of what the node is.
  void Change(const std::string& node_id, v1::NodeState state = v1::NODE_STATE_READY) {
    Become(DescriptionOf(node_id, state));
  }

  // While blocked, handlers stand still in OnFrame.
  void Block(bool blocked) {
    absl::MutexLock lock(&mutex_);
    blocked_ = blocked;
  }

  // While holding, frames are not echoed.
  void Hold(bool holding) {
    absl::MutexLock lock(&mutex_);
    holding_ = holding;
  }

  // While holding, calls to load and unload stand still.
  void HoldCalls(bool holding) {
    absl::MutexLock lock(&mutex_);
    holding_calls_ = holding;
  }
  bool AwaitCalls(int count) const {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return calls_ >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), kTooLong);
  }
  int calls() const {
    absl::MutexLock lock(&mutex_);
    return calls_;
  }
  // What was asked last.
  internal::v1::LoadExpertsRequest last_load() const {
    absl::MutexLock lock(&mutex_);
    return last_load_;
  }
  internal::v1::UnloadExpertsRequest last_unload() const {
    absl::MutexLock lock(&mutex_);
    return last_unload_;
  }
  absl::StatusOr<internal::v1::LoadExpertsResponse> LoadExperts(
      const internal::v1::LoadExpertsRequest& request) override {
    BeginCall(request, &last_load_);
    return FakeEndpoint::LoadExperts(request);
  }
  absl::StatusOr<internal::v1::UnloadExpertsResponse> UnloadExperts(
      const internal::v1::UnloadExpertsRequest& request) override {
    BeginCall(request, &last_unload_);
    return FakeEndpoint::UnloadExperts(request);
  }

  bool AwaitHandlers(int count) const {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return handlers_ == count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), kTooLong);
  }

  bool AwaitFrames(int count) const {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return frames_ >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), kTooLong);
  }

  int frames() const {
    absl::MutexLock lock(&mutex_);
    return frames_;
  }

  // The sink of the last stream that was opened; the node forgets it.
  std::shared_ptr<FrameSink> TakeSink() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(last_sink_, nullptr);
  }
  void KeepSinks() {
    absl::MutexLock lock(&mutex_);
    keep_sinks_ = true;
  }

  std::unique_ptr<StreamHandler> OpenCompute(std::shared_ptr<FrameSink> replies) override {
    absl::MutexLock lock(&mutex_);
    ++handlers_;
    if (keep_sinks_) {
      last_sink_ = replies;
    }
    return std::make_unique<Echo>(this, std::move(replies));
  }

 private:
  static v1::NodeDescription DescriptionOf(const std::string& node_id, v1::NodeState state) {
    v1::NodeDescription description;
    description.set_node_id(node_id);
    description.set_state(state);
    return description;
  }

  template <typename Request>
  void BeginCall(const Request& request, Request* last) {
    absl::MutexLock lock(&mutex_);
    *last = request;
    ++calls_;
    const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !holding_calls_; };
    mutex_.Await(absl::Condition(&free));
  }

  class Echo final : public StreamHandler {
   public:
    Echo(EchoNode* node, std::shared_ptr<FrameSink> replies)
        : node_(node), replies_(std::move(replies)) {}
    ~Echo() override {
      replies_.reset();
      absl::MutexLock lock(&node_->mutex_);
      --node_->handlers_;
    }
    void OnFrame(Frame frame) override {
      {
        absl::MutexLock lock(&node_->mutex_);
        ++node_->frames_;
        EchoNode* const node = node_;
        const auto free = [node]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !node->blocked_; };
        node_->mutex_.Await(absl::Condition(&free));
        if (node_->holding_) {
          return;
        }
      }
      replies_->Send(std::move(frame)).IgnoreError();  // Fails when the stream is gone.
    }

   private:
    EchoNode* const node_;
    std::shared_ptr<FrameSink> replies_;
  };

  mutable absl::Mutex mutex_;
  int handlers_ ABSL_GUARDED_BY(mutex_) = 0;
  int frames_ ABSL_GUARDED_BY(mutex_) = 0;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  bool keep_sinks_ ABSL_GUARDED_BY(mutex_) = false;
  bool holding_calls_ ABSL_GUARDED_BY(mutex_) = false;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
  internal::v1::LoadExpertsRequest last_load_ ABSL_GUARDED_BY(mutex_);
  internal::v1::UnloadExpertsRequest last_unload_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<FrameSink> last_sink_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_ECHO_NODE_H_
