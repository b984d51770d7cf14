#include "expert_service/device_loss.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"

namespace expertmesh::node {

DeviceLoss::DeviceLoss(std::function<void()> stop) : stop_(std::move(stop)) {}

void DeviceLoss::Lost(const absl::Status& why) {
  {
    const absl::MutexLock lock(&mutex_);
    if (!why_.ok()) {
      return;
    }
    why_ = why;
    if (node_ != nullptr) {
      node_->LoseDevice(why);
    }
  }
  spdlog::error("{}; the process ends, to be started again", std::string(why.message()));
  stop_();
}

void DeviceLoss::Tell(Node* node) {
  const absl::MutexLock lock(&mutex_);
  node_ = node;
  if (node_ != nullptr && !why_.ok()) {
    node_->LoseDevice(why_);
  }
}

absl::Status DeviceLoss::status() const {
  const absl::MutexLock lock(&mutex_);
  return why_;
}

void EndProcessAfter(absl::Duration grace) {
  std::thread([grace] {
    absl::SleepFor(grace);
    spdlog::error("the lost device keeps the process from ending; ending it");
    spdlog::shutdown();
    _exit(1);
  }).detach();
}

}  // namespace expertmesh::node
