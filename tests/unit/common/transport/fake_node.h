// A node that echoes frames, and a router's observer that remembers: for tests of transports.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_TRANSPORT_FAKE_NODE_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_TRANSPORT_FAKE_NODE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/transport/transport.h"
#include "tests/support/too_long.h"

namespace expertmesh {

class FakeNode final : public NodeEndpoint {
 public:
  explicit FakeNode(std::string node_id = "fake") {
    description_.set_node_id(std::move(node_id));
    description_.set_state(v1::NODE_STATE_READY);
  }

  // As a change of what the node is.
  void Change(const std::string& node_id, v1::NodeState state = v1::NODE_STATE_READY) {
    absl::MutexLock lock(&mutex_);
    description_.set_node_id(node_id);
    description_.set_state(state);
    ++version_;
    for (const auto& [id, on_change] : subscribers_) {
      on_change();
    }
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

  v1::DescribeResponse Describe() const override {
    absl::MutexLock lock(&mutex_);
    return description_;
  }

  v1::WatchStatusResponse Status() const override {
    absl::MutexLock lock(&mutex_);
    v1::WatchStatusResponse status;
    status.set_state(description_.state());
    status.set_version(version_);
    *status.mutable_description() = description_;
    return status;
  }

  std::unique_ptr<StatusSubscription> Subscribe(std::function<void()> on_change) override {
    absl::MutexLock lock(&mutex_);
    const int id = next_subscriber_++;
    subscribers_.emplace(id, std::move(on_change));
    return std::make_unique<Subscription>(this, id);
  }

  std::unique_ptr<StreamHandler> OpenCompute(std::shared_ptr<FrameSink> replies) override {
    absl::MutexLock lock(&mutex_);
    ++handlers_;
    if (keep_sinks_) {
      last_sink_ = replies;
    }
    return std::make_unique<Echo>(this, std::move(replies));
  }

  absl::StatusOr<v1::LoadExpertsResponse> LoadExperts(
      const v1::LoadExpertsRequest& request) override {
    if (request.experts_size() == 0) {
      return absl::NotFoundError("experts: nothing asked for");
    }
    v1::LoadExpertsResponse response;
    response.set_loaded(static_cast<uint64_t>(request.experts_size()));
    return response;
  }

  absl::StatusOr<v1::UnloadExpertsResponse> UnloadExperts(
      const v1::UnloadExpertsRequest& request) override {
    v1::UnloadExpertsResponse response;
    response.set_unloaded(static_cast<uint64_t>(request.experts_size()));
    return response;
  }

 private:
  class Subscription final : public StatusSubscription {
   public:
    Subscription(FakeNode* node, int id) : node_(node), id_(id) {}
    ~Subscription() override {
      absl::MutexLock lock(&node_->mutex_);
      node_->subscribers_.erase(id_);
    }

   private:
    FakeNode* const node_;
    const int id_;
  };

  class Echo final : public StreamHandler {
   public:
    Echo(FakeNode* node, std::shared_ptr<FrameSink> replies)
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
        FakeNode* const node = node_;
        const auto free = [node]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !node->blocked_; };
        node_->mutex_.Await(absl::Condition(&free));
        if (node_->holding_) {
          return;
        }
      }
      replies_->Send(std::move(frame)).IgnoreError();  // Fails when the stream is gone.
    }

   private:
    FakeNode* const node_;
    std::shared_ptr<FrameSink> replies_;
  };

  mutable absl::Mutex mutex_;
  v1::DescribeResponse description_ ABSL_GUARDED_BY(mutex_);
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<int, std::function<void()>> subscribers_ ABSL_GUARDED_BY(mutex_);
  int next_subscriber_ ABSL_GUARDED_BY(mutex_) = 0;
  int handlers_ ABSL_GUARDED_BY(mutex_) = 0;
  int frames_ ABSL_GUARDED_BY(mutex_) = 0;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  bool keep_sinks_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<FrameSink> last_sink_ ABSL_GUARDED_BY(mutex_);
};

// Remembers all it hears, and fails the test when two calls overlap.
class RecordingObserver final : public NodeObserver {
 public:
  struct Heard {
    std::vector<v1::WatchStatusResponse> statuses;
    std::vector<std::string> frames;
    size_t frame_count = 0;
    std::vector<absl::Status> disconnects;
    bool up = false;
    int times_up = 0;
  };

  // `keep_frames` false: counts them only.
  explicit RecordingObserver(bool keep_frames = true) : keep_frames_(keep_frames) {}

  void OnStatus(const v1::WatchStatusResponse& status) override {
    const Alone alone(&inside_);
    absl::MutexLock lock(&mutex_);
    heard_.statuses.push_back(status);
    heard_.times_up += heard_.up ? 0 : 1;
    heard_.up = true;
  }
  void OnFrame(Frame frame) override {
    const Alone alone(&inside_);
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(heard_.up) << "a frame while down";
    ++heard_.frame_count;
    if (keep_frames_) {
      heard_.frames.push_back(frame.Flatten());
    }
  }
  void OnDisconnected(const absl::Status& why) override {
    const Alone alone(&inside_);
    EXPECT_FALSE(why.ok());
    absl::MutexLock lock(&mutex_);
    heard_.disconnects.push_back(why);
    heard_.up = false;
  }

  // Waits until `reached` holds; false when that takes too long.
  bool Await(const std::function<bool(const Heard&)>& reached) const {
    absl::MutexLock lock(&mutex_);
    const auto condition = [this, &reached]()
                               ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return reached(heard_); };
    return mutex_.AwaitWithTimeout(absl::Condition(&condition), kTooLong);
  }
  bool AwaitUp(int times = 1) const {
    return Await([times](const Heard& heard) { return heard.up && heard.times_up >= times; });
  }
  bool AwaitFrames(size_t count) const {
    return Await([count](const Heard& heard) { return heard.frame_count >= count; });
  }
  bool AwaitDisconnects(size_t count) const {
    return Await([count](const Heard& heard) { return heard.disconnects.size() >= count; });
  }

  Heard heard() const {
    absl::MutexLock lock(&mutex_);
    return heard_;
  }

 private:
  class Alone {
   public:
    explicit Alone(std::atomic<int>* inside) : inside_(inside) {
      EXPECT_EQ(inside_->fetch_add(1), 0) << "two callbacks at once";
    }
    ~Alone() { inside_->fetch_sub(1); }

   private:
    std::atomic<int>* const inside_;
  };

  const bool keep_frames_;
  std::atomic<int> inside_{0};
  mutable absl::Mutex mutex_;
  Heard heard_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_TRANSPORT_FAKE_NODE_H_
