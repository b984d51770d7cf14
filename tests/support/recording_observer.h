// A router's end of a connection, for tests of transports and nodes.
#ifndef EXPERTMESH_TESTS_SUPPORT_RECORDING_OBSERVER_H_
#define EXPERTMESH_TESTS_SUPPORT_RECORDING_OBSERVER_H_

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/transport/transport.h"
#include "tests/support/too_long.h"

namespace expertmesh {

// Remembers all it hears, and fails the test when two calls overlap.
class RecordingObserver final : public NodeObserver {
 public:
  struct Heard {
    std::vector<internal::v1::WatchStatusResponse> statuses;
    std::vector<std::string> frames;
    size_t frame_count = 0;
    std::vector<absl::Status> disconnects;
    bool up = false;
    int times_up = 0;
  };

  // `keep_frames` false: counts them only.
  explicit RecordingObserver(bool keep_frames = true) : keep_frames_(keep_frames) {}

  void OnStatus(const internal::v1::WatchStatusResponse& status) override {
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

#endif  // EXPERTMESH_TESTS_SUPPORT_RECORDING_OBSERVER_H_
