// The placement of one policy: what is in use, what is being loaded, and what the planner wants.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_PLACEMENT_RUN_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_PLACEMENT_RUN_H_

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/replay/mesh_model.h"
#include "client/cpp/replay/simulation.h"
#include "common/balance/placement_planner.h"

namespace expertmesh::replay {

// What a plan sets off.
struct Moves {
  uint64_t copies = 0;
  uint64_t bytes = 0;
  // Mean over layers: lowest possible fullest node over the mean.
  double lower_bound = 0;
};

// Not thread-safe. `mesh` outlives it.
class PlacementRun {
 public:
  PlacementRun(const MeshModel& mesh, absl::Span<const balance::RecordedLayer> layers);

  void Fail(uint32_t node);
  void Join(uint32_t node);
  // Layers whose copies are there at `now_s` switch to them.
  void Settle(double now_s);
  bool settling() const { return !pending_.empty(); }

  // Plans for `loads`, [layers][num_experts], and begins to load. Nothing changes on an error: that
  // of PlanPlacement.
  absl::StatusOr<Moves> Plan(const std::vector<std::vector<double>>& loads,
                             const balance::PlannerOptions& options, double now_s);

  const std::vector<bool>& alive() const { return alive_; }
  uint32_t nodes() const;
  const std::vector<balance::LayerPlacement>& layers() const { return layers_; }
  uint64_t copies() const;

 private:
  // A layer on its way to another placement.
  struct Pending {
    size_t layer = 0;  // Position in layers_.
    balance::LayerPlacement placement;
    double ready_s = 0;
  };

  balance::PlanningInput MakeInput(const std::vector<std::vector<double>>& loads) const;
  // Names positions in MeshModel::nodes where the planner named those in its input.
  balance::LayerPlacement WithNodes(const balance::LayerPlacement& planned) const;
  void Begin(const balance::LayerPlacement& planned, size_t layer, std::vector<double>* free_at,
             Moves* moves);

  const MeshModel& mesh_;
  std::vector<bool> alive_;
  std::vector<uint32_t> alive_nodes_;  // Positions, ascending.
  std::vector<balance::LayerPlacement> layers_;
  std::vector<Pending> pending_;
};

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_PLACEMENT_RUN_H_
