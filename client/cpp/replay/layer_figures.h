// What one layer's load does to the nodes of a placement.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_LAYER_FIGURES_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_LAYER_FIGURES_H_

#include <vector>

#include "absl/types/span.h"
#include "client/cpp/replay/latency_mixture.h"
#include "client/cpp/replay/load_source.h"
#include "client/cpp/replay/mesh_model.h"
#include "common/balance/placement_plan.h"

namespace expertmesh::replay {

struct BatchTimes {
  double batches = 0;
  std::vector<NodeTime> nodes;
};

struct LayerFigures {
  // Fullest node's time for its assignments and their rows over what every node would need, were
  // they divided evenly. 1 without load.
  double fullest_over_mean = 1;
  // Assignments of experts that no node has.
  double lost = 0;
  // [nodes] Assignments of the interval, and the time that they keep the node busy.
  std::vector<double> assignments;
  std::vector<double> busy_us;
  // What one batch of each size waits for: the nodes that take part in it, and all of them together
  // where they share cores.
  std::vector<BatchTimes> times;
};

// `assignments`: [num_experts] of an interval of `tokens`, in these batches. Nodes that are not
// `alive` ([nodes]) do nothing; what is left of an expert's copies takes all of its load. Reuses
// the memory of `figures`.
void EvaluateLayer(const MeshModel& mesh, const std::vector<bool>& alive,
                   const balance::LayerPlacement& placement, absl::Span<const double> assignments,
                   double tokens, absl::Span<const BatchSize> batch_sizes, LayerFigures* figures);

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_LAYER_FIGURES_H_
