#include "expert_service/change_notifier.h"

#include <algorithm>
#include <utility>

namespace expertmesh::node {

void ChangeNotifier::Line::Call() {
  const absl::MutexLock lock(&mutex_);
  if (on_change_) {
    on_change_();
  }
}

void ChangeNotifier::Line::Cut() {
  const absl::MutexLock lock(&mutex_);
  on_change_ = nullptr;
}

class ChangeNotifier::Subscription final : public StatusSubscription {
 public:
  explicit Subscription(std::shared_ptr<Line> line) : line_(std::move(line)) {}
  ~Subscription() override { line_->Cut(); }

 private:
  const std::shared_ptr<Line> line_;
};

std::unique_ptr<StatusSubscription> ChangeNotifier::Subscribe(std::function<void()> on_change) {
  auto line = std::make_shared<Line>(std::move(on_change));
  const absl::MutexLock lock(&mutex_);
  lines_.erase(
      std::remove_if(lines_.begin(), lines_.end(), [](const auto& each) { return each.expired(); }),
      lines_.end());
  lines_.push_back(line);
  return std::make_unique<Subscription>(std::move(line));
}

void ChangeNotifier::Notify() {
  std::vector<std::weak_ptr<Line>> lines;
  {
    const absl::MutexLock lock(&mutex_);
    lines = lines_;
  }
  for (const std::weak_ptr<Line>& weak : lines) {
    if (const std::shared_ptr<Line> line = weak.lock()) {
      line->Call();
    }
  }
}

}  // namespace expertmesh::node
