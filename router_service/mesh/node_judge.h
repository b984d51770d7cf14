// Judges the links of a fleet, again and again: see NodeLink::Judge.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_JUDGE_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_JUDGE_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "common/transport/transport.h"
#include "router_service/mesh/mesh_view.h"
#include "router_service/mesh/node_link.h"

namespace expertmesh::mesh {

// Thread-safe. Works on the thread of `timers`.
class NodeJudge {
 public:
  struct Subjects {
    std::vector<std::shared_ptr<NodeLink>> links;  // Some may be null.
    std::shared_ptr<const MeshView> view;
  };

  // Begins at once. The pointers must outlive the judge; `subjects` is called without locks.
  NodeJudge(const Transport* transport, TimerQueue* timers, Clock* clock,
            std::function<Subjects()> subjects);
  // Stops.
  ~NodeJudge();

  // Waits for a judgement that is under way. Not from one, nor with a lock that `subjects` or a
  // link's `on_change` wants.
  void Stop();

 private:
  void Judge();
  void Schedule() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Transport* const transport_;
  TimerQueue* const timers_;
  Clock* const clock_;
  const std::function<Subjects()> subjects_;

  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  TimerSlot timer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_NODE_JUDGE_H_
