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
  // For each copy, ln of the chance that a token does not use it.
  std::vector<double> unused;
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
      if (alive[copy.node] && copy.share > 0 && assignments[expert] > 0) {
        NodePart& part = parts[copy.node];
        const double here = assignments[expert] * copy.share / all;
        const double chance = std::min(here / tokens, 1 - 1e-12);
        part.assignments += here;
        part.variance += chance * (1 - chance);
        part.unused.push_back(std::log1p(-chance));
        part.none += part.unused.back();
      }
    }
  }
  return parts;
}

// Computing on one node for one batch.
struct Computing {
  NodeTime time;
  // Rows that come for it.
  double rows = 0;
};

Computing ComputingOf(const MeshModel& mesh, const SimulatedNode& node, const NodePart& part,
                      double share, double batch_tokens) {
  const ServiceTimes& times = mesh.times;
  Computing computing;
  computing.rows = batch_tokens * -std::expm1(part.none);
  double experts = 0;
  double variance = 0;
  for (const double unused : part.unused) {
    const double idle = std::exp(batch_tokens * unused);
    experts += 1 - idle;
    variance += idle * (1 - idle);
  }
  const double takes_part = std::min(1.0, computing.rows);
  computing.time.mean_us = (takes_part * times.batch_us + experts * times.expert_us +
                            part.assignments * share * times.assignment_us) /
                           node.speed;
  computing.time.deviation_us =
      std::hypot(times.expert_us * std::sqrt(variance),
                 times.assignment_us * std::sqrt(batch_tokens * part.variance)) /
      node.speed;
  return computing;
}

// One batch of `size`; adds the time that nodes are busy with all of them to `busy_us`.
BatchTimes TimesOf(const MeshModel& mesh, const std::vector<NodePart>& parts, double tokens,
                   const BatchSize& size, std::vector<double>* busy_us) {
  BatchTimes times = {.batches = size.batches, .nodes = {}};
  const double before_us = mesh.times.hop_us + size.tokens * mesh.times.token_us;
  double together_us = 0;
  double together_variance = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].assignments <= 0) {
      continue;
    }
    const SimulatedNode& node = mesh.nodes[i];
    const Computing computing =
        ComputingOf(mesh, node, parts[i], size.tokens / tokens, size.tokens);
    const double row_us = mesh.times.row_us * node.link;
    (*busy_us)[i] += size.batches * computing.time.mean_us;
    together_us += computing.time.mean_us;
    together_variance += computing.time.deviation_us * computing.time.deviation_us;
    times.nodes.push_back(
        {.mean_us = before_us + computing.time.mean_us + computing.rows * row_us,
         .deviation_us = std::hypot(computing.time.deviation_us,
                                    row_us * std::sqrt(size.tokens * parts[i].variance))});
  }
  if (mesh.parallel_nodes > 0 && mesh.parallel_nodes < times.nodes.size()) {
    const double parallel = mesh.parallel_nodes;
    times.nodes.push_back({.mean_us = before_us + together_us / parallel,
                           .deviation_us = std::sqrt(together_variance) / parallel});
  }
  return times;
}

}  // namespace

void EvaluateLayer(const MeshModel& mesh, const std::vector<bool>& alive,
                   const balance::LayerPlacement& placement, absl::Span<const double> assignments,
                   double tokens, absl::Span<const BatchSize> batch_sizes, LayerFigures* figures) {
  const size_t nodes = mesh.nodes.size();
  EXPERTMESH_CHECK(alive.size() == nodes && placement.experts.size() == assignments.size());
  figures->fullest_over_mean = 1;
  figures->lost = 0;
  figures->assignments.assign(nodes, 0);
  figures->busy_us.assign(nodes, 0);
  figures->times.clear();
  if (tokens <= 0) {
    return;
  }
  const std::vector<NodePart> parts = Divide(alive, placement, assignments, tokens, &figures->lost);
  double speed = 0;
  double work = 0;
  double fullest = 0;
  for (size_t i = 0; i < nodes; ++i) {
    if (!alive[i]) {
      continue;
    }
    const double assignment_us =
        mesh.times.assignment_us / mesh.nodes[i].speed + mesh.times.row_us * mesh.nodes[i].link;
    speed += 1 / assignment_us;
    work += parts[i].assignments;
    fullest = std::max(fullest, parts[i].assignments * assignment_us);
    figures->assignments[i] = parts[i].assignments;
  }
  for (const BatchSize& size : batch_sizes) {
    figures->times.push_back(TimesOf(mesh, parts, tokens, size, &figures->busy_us));
  }
  if (work > 0) {
    figures->fullest_over_mean = fullest * speed / work;
  }
}

}  // namespace expertmesh::replay
