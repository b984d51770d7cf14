// What becomes of a node whose device is lost: it takes no more work, says why, and its process
// ends, so that its supervisor starts it again. A CUDA context that has failed once fails until its
// process ends.
#ifndef EXPERTMESH_EXPERT_SERVICE_DEVICE_LOSS_H_
#define EXPERTMESH_EXPERT_SERVICE_DEVICE_LOSS_H_

#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "expert_service/node.h"

namespace expertmesh::node {

// Thread-safe.
class DeviceLoss {
 public:
  // `stop` asks the process to stop; called when the device is lost, by any thread.
  explicit DeviceLoss(std::function<void()> stop);

  // The device is lost; only the first time counts.
  void Lost(const absl::Status& why);

  // Tells this node of it, now or when it comes; null: none from now on, and none is being told
  // when this returns.
  void Tell(Node* node);

  // Why; OK while the device is there.
  absl::Status status() const;

 private:
  const std::function<void()> stop_;

  mutable absl::Mutex mutex_;
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
  Node* node_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

// Ends the process, with exit status 1, when it has not ended by itself after `grace`: calls of a
// driver that is in trouble may never return.
void EndProcessAfter(absl::Duration grace);

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_DEVICE_LOSS_H_
