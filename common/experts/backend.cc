#include "common/experts/backend.h"

#include <utility>

#include "absl/synchronization/notification.h"

namespace expertmesh::experts {

absl::Status Compute(Backend& backend, const GroupedBatch& batch) {
  struct Result {
    absl::Status status;
    absl::Notification completed;
  } result;
  backend.Submit(batch, [&result](absl::Status status) {
    result.status = std::move(status);
    result.completed.Notify();
  });
  result.completed.WaitForNotification();
  return result.status;
}

}  // namespace expertmesh::experts
