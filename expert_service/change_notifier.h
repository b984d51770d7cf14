// Tells subscribers that something changed.
#ifndef EXPERTMESH_EXPERT_SERVICE_CHANGE_NOTIFIER_H_
#define EXPERTMESH_EXPERT_SERVICE_CHANGE_NOTIFIER_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/transport/transport.h"

namespace expertmesh::node {

// Thread-safe. Subscriptions may outlive the notifier.
class ChangeNotifier {
 public:
  // `on_change` must not block, and must not destroy its own subscription.
  std::unique_ptr<StatusSubscription> Subscribe(std::function<void()> on_change);

  // Calls every subscriber, without locks that others could wait for except its own.
  void Notify();

 private:
  // A callback until it is cut off. The mutex is held while it runs, so that cutting off waits.
  class Subscriber {
   public:
    explicit Subscriber(std::function<void()> on_change) : on_change_(std::move(on_change)) {}
    void Call();
    void Disconnect();

   private:
    absl::Mutex mutex_;
    std::function<void()> on_change_ ABSL_GUARDED_BY(mutex_);
  };
  class Subscription;

  absl::Mutex mutex_;
  std::vector<std::weak_ptr<Subscriber>> subscribers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_CHANGE_NOTIFIER_H_
