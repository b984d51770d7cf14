#include "common/balance/placement_planner.h"

#include <cmath>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/balance/planning_input_check.h"
#include "common/balance/planning_run.h"

namespace expertmesh::balance {

absl::StatusOr<PlanningResult> PlanPlacement(const PlanningInput& input,
                                             const PlannerOptions& options) {
  if (absl::Status status = CheckPlanningInput(input, options); !status.ok()) {
    return status;
  }
  return PlanningRun(input, options).Run();
}

std::string Explain(const PlanningInput& input, const PlanningResult& result,
                    const CopyMove& move) {
  const LayerForecast& layer = result.layers[move.layer_position];
  std::string text = absl::StrFormat("expert %d of layer %d: %.1f %% of its layer's load; ",
                                     move.expert, layer.layer, 100 * move.expert_share);
  if (move.to == CopyMove::kNoNode) {
    absl::StrAppend(&text, "its copy on ", input.nodes[move.from].node_id, " goes, ", move.copies,
                    move.copies == 1 ? " stays" : " stay");
  } else {
    absl::StrAppendFormat(&text, "copy %d of %d, on %s", move.copy_number, move.copies,
                          input.nodes[move.to].node_id);
    if (move.from != CopyMove::kNoNode) {
      absl::StrAppend(&text, " instead of ", input.nodes[move.from].node_id);
    }
    absl::StrAppendFormat(&text, ", takes %.2f of it", move.copy_share);
  }
  if (std::isfinite(layer.present_fullest)) {
    absl::StrAppendFormat(&text, "; fullest node %.2f -> %.2f of the mean",
                          layer.present_fullest / layer.mean, layer.FullestOverMean());
  } else {
    absl::StrAppendFormat(&text, "; fullest node %.2f of the mean", layer.FullestOverMean());
  }
  return text;
}

void HoldCopiesOf(const PlacementPlan& plan, std::vector<NodeToPlan>* nodes) {
  absl::flat_hash_map<absl::string_view, NodeToPlan*> by_id;
  for (NodeToPlan& node : *nodes) {
    node.held.clear();
    by_id[node.node_id] = &node;
  }
  for (const LayerPlacement& layer : plan.layers) {
    for (uint32_t expert = 0; expert < layer.experts.size(); ++expert) {
      for (const ExpertCopy& copy : layer.experts[expert]) {
        const auto holder = by_id.find(plan.nodes[copy.node]);
        if (holder == by_id.end()) {
          continue;
        }
        std::vector<HeldExperts>& held = holder->second->held;
        if (held.empty() || held.back().layer != layer.layer) {
          held.push_back({layer.layer, {}});
        }
        held.back().experts.push_back(expert);
      }
    }
  }
}

}  // namespace expertmesh::balance
