// What every double of a node has: a description that tests change, and those who hear of it. What
// a stream does with frames is up to the double.
#ifndef EXPERTMESH_TESTS_SUPPORT_FAKE_ENDPOINT_H_
#define EXPERTMESH_TESTS_SUPPORT_FAKE_ENDPOINT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/transport/transport.h"

namespace expertmesh {

// Thread-safe. Streams and subscriptions must be gone before it is destroyed.
class FakeEndpoint : public NodeEndpoint {
 public:
  explicit FakeEndpoint(v1::NodeDescription description) : description_(std::move(description)) {}

  v1::NodeDescription Describe() const override {
    absl::MutexLock lock(&mutex_);
    return description_;
  }

  internal::v1::WatchStatusResponse Status() const override {
    absl::MutexLock lock(&mutex_);
    internal::v1::WatchStatusResponse status;
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

  absl::StatusOr<internal::v1::LoadExpertsResponse> LoadExperts(
      const internal::v1::LoadExpertsRequest& request) override {
    if (request.experts_size() == 0) {
      return absl::NotFoundError("experts: nothing asked for");
    }
    internal::v1::LoadExpertsResponse response;
    response.set_loaded(static_cast<uint64_t>(request.experts_size()));
    return response;
  }

  absl::StatusOr<internal::v1::UnloadExpertsResponse> UnloadExperts(
      const internal::v1::UnloadExpertsRequest& request) override {
    internal::v1::UnloadExpertsResponse response;
    response.set_unloaded(static_cast<uint64_t>(request.experts_size()));
    return response;
  }

 protected:
  // From now on the node is as `description` says, and tells so.
  void Become(v1::NodeDescription description) {
    absl::MutexLock lock(&mutex_);
    description_ = std::move(description);
    ++version_;
    for (const auto& [id, on_change] : subscribers_) {
      on_change();
    }
  }

 private:
  class Subscription final : public StatusSubscription {
   public:
    Subscription(FakeEndpoint* node, int id) : node_(node), id_(id) {}
    ~Subscription() override {
      absl::MutexLock lock(&node_->mutex_);
      node_->subscribers_.erase(id_);
    }

   private:
    FakeEndpoint* const node_;
    const int id_;
  };

  mutable absl::Mutex mutex_;
  v1::NodeDescription description_ ABSL_GUARDED_BY(mutex_);
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<int, std::function<void()>> subscribers_ ABSL_GUARDED_BY(mutex_);
  int next_subscriber_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_FAKE_ENDPOINT_H_
