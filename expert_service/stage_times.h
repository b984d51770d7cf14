// When a batch reached the stages on this node.
#ifndef EXPERTMESH_EXPERT_SERVICE_STAGE_TIMES_H_
#define EXPERTMESH_EXPERT_SERVICE_STAGE_TIMES_H_

#include "absl/time/time.h"

namespace expertmesh::node {

// One value that travels with the batch; each stage writes its own time, by the node's clock.
struct StageTimes {
  // Its first frame came.
  absl::Time arrived;
  // Its last frame came; it waits in the queue from here on.
  absl::Time complete;
  // It was taken out of the queue to be computed.
  absl::Time started;
  // Its partials were there.
  absl::Time computed;

  absl::Duration receiving() const { return complete - arrived; }
  absl::Duration queueing() const { return started - complete; }
  absl::Duration computing() const { return computed - started; }
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_STAGE_TIMES_H_
