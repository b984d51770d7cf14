#include "expert_service/change_notifier.h"

#include <algorithm>
#include <utility>

namespace expertmesh::node {

void ChangeNotifier::Subscriber::Call() {
  const absl::MutexLock lock(&mutex_);
  if (on_change_) {
    on_change_();
  }
}

void ChangeNotifier::Subscriber::Disconnect() {
  const absl::MutexLock lock(&mutex_);
  on_change_ = nullptr;
}

class ChangeNotifier::Subscription final : public StatusSubscription {
 public:
  explicit Subscription(std::shared_ptr<Subscriber> subscriber)
      : subscriber_(std::move(subscriber)) {}
  ~Subscription() override { subscriber_->Disconnect(); }

 private:
  const std::shared_ptr<Subscriber> subscriber_;
};

std::unique_ptr<StatusSubscription> ChangeNotifier::Subscribe(std::function<void()> on_change) {
  auto subscriber = std::make_shared<Subscriber>(std::move(on_change));
  const absl::MutexLock lock(&mutex_);
  subscribers_.erase(std::remove_if(subscribers_.begin(), subscribers_.end(),
                                    [](const auto& each) { return each.expired(); }),
                     subscribers_.end());
  subscribers_.push_back(subscriber);
  return std::make_unique<Subscription>(std::move(subscriber));
}

void ChangeNotifier::Notify() {
  std::vector<std::weak_ptr<Subscriber>> subscribers;
  {
    const absl::MutexLock lock(&mutex_);
    subscribers = subscribers_;
  }
  for (const std::weak_ptr<Subscriber>& weak : subscribers) {
    if (const std::shared_ptr<Subscriber> subscriber = weak.lock()) {
      subscriber->Call();
    }
  }
}

}  // namespace expertmesh::node
