#include "client/cpp/replay/layer_figures.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace expertmesh::replay {
namespace {

// A node's part of the layer, gathered over its copies.
struct NodePart {
  double assignments = 0;
  // Variance of the assignments of one token.
  double variance = 0;
  // ln of the chance that a token has no expert here.
  double none = 0;
};

double AliveShare(const std::vector<balance::ExpertCopy>& copies, const std::vector<bool>& alive) {
  double share = 0;
  for (const balance::ExpertCopy& copy : copies) {
    share += alive[copy.node] ? copy.share : 0;
  }
  return share;
}

std::vector<NodePart> Divide(const std::vector<bool>& alive,
                             const balance::LayerPlacement& placement,
                             absl::Span<const double> assignments, double tokens, double* lost) {
  std::vector<NodePart> parts(alive.size());
  for (size_t expert = 0; expert < assignments.size(); ++expert) {
    const std::vector<balance::ExpertCopy>& copies = placement.experts[expert];
    const double all = AliveShare(copies, alive);
    if (all <= 0) {
      *lost += assignments[expert];
      continue;
    }
    for (const balance::ExpertCopy& copy : copies) {
      if (alive[copy.node] && copy.share > 0) {
        NodePart& part = parts[copy.node];
        const double here = assignments[expert] * copy.share / all;
        const double chance = std::min(here / tokens, 1 - 1e-12);
        part.assignments += here;
        part.variance += chance * (1 - chance);
        part.none += std::log1p(-chance);
      }
    }
  }
  return parts;
}

}  // namespace

void EvaluateLayer(const MeshModel& mesh, const std::vector<bool>& alive,
                   const balance::LayerPlacement& placement, absl::Span<const double> assignments,
                   double tokens, double batch_tokens, LayerFigures* figures) {
  const size_t nodes = mesh.nodes.size();
  EXPERTMESH_CHECK(alive.size() == nodes && placement.experts.size() == assignments.size());
  figures->fullest_over_mean = 1;
  figures->lost = 0;
  figures->assignments.assign(nodes, 0);
  figures->busy_us.assign(nodes, 0);
  figures->times.clear();
  if (tokens <= 0 || batch_tokens <= 0) {
    return;
  }
  const std::vector<NodePart> parts = Divide(alive, placement, assignments, tokens, &figures->lost);
  const double batches = tokens / batch_tokens;
  double speed = 0;
  double work = 0;
  double fullest = 0;
  for (size_t i = 0; i < nodes; ++i) {
    if (!alive[i]) {
      continue;
    }
    const NodePart& part = parts[i];
    const SimulatedNode& node = mesh.nodes[i];
    const double assignment_us = mesh.times.assignment_us / node.speed;
    const double row_us = mesh.times.row_us * node.link;
    speed += 1 / (assignment_us + row_us);
    work += part.assignments;
    fullest = std::max(fullest, part.assignments * (assignment_us + row_us));
    if (part.assignments <= 0) {
      continue;
    }
    const double of_batch = part.assignments / batches;
    const double rows = batch_tokens * -std::expm1(part.none);
    const double batch_us = mesh.times.batch_us / node.speed;
    const double takes_part = std::min(1.0, rows);
    figures->assignments[i] = part.assignments;
    figures->busy_us[i] = part.assignments * assignment_us + batches * takes_part * batch_us;
    figures->times.push_back(
        {.mean_us =
             mesh.times.hop_us + takes_part * batch_us + of_batch * assignment_us + rows * row_us,
         .deviation_us = (assignment_us + row_us) * std::sqrt(batch_tokens * part.variance)});
  }
  if (work > 0) {
    figures->fullest_over_mean = fullest * speed / work;
  }
}

}  // namespace expertmesh::replay
