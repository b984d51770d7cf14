#include "router_service/batch/batch_part.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace expertmesh::batch {
namespace {

using mesh::ExpertReplicas;
using mesh::NodeIndex;

// The slice of an expert that `node` held `before`, as it is held `now`: only that one is to be
// served again, and only where the expert is cut the same way.
ExpertReplicas ReplicasOfSlice(const ExpertReplicas& before, const ExpertReplicas& now,
                               NodeIndex node) {
  const std::optional<size_t> slice = before.SliceOn(node);
  if (!slice || before.slices.size() != now.slices.size()) {
    return {};
  }
  return ExpertReplicas{{now.slices[*slice]}};
}

// Takes out the nodes that lost the part, and those that refused it where another one is left.
void LeaveOutNodesThatFailed(const BatchPart& part, ExpertReplicas* replicas) {
  for (std::vector<NodeIndex>& nodes : replicas->slices) {
    std::erase_if(nodes, [&part](NodeIndex node) { return part.lost_by.contains(node); });
    std::vector<NodeIndex> willing = nodes;
    std::erase_if(willing, [&part](NodeIndex node) { return part.refused_by.contains(node); });
    if (!willing.empty()) {
      nodes = std::move(willing);
    }
    if (nodes.empty()) {
      *replicas = {};
      return;
    }
  }
}

// Nodes that have not been asked for the shared experts of `part`.
ExpertReplicas FreshReplicas(const BatchPart& part, ExpertReplicas replicas) {
  if (part.last_attempt || replicas.missing()) {
    return {};
  }
  std::erase_if(replicas.slices.front(), [&part](NodeIndex node) {
    return part.lost_by.contains(node) || part.refused_by.contains(node);
  });
  return replicas.slices.front().empty() ? ExpertReplicas() : replicas;
}

}  // namespace

std::vector<ExpertReplicas> ReplicasFor(const BatchPart& part, const mesh::MeshView& view) {
  const std::vector<ExpertReplicas>& before = *part.view->placement().Layer(part.layer);
  const std::vector<ExpertReplicas>& now = *view.placement().Layer(part.layer);
  std::vector<ExpertReplicas> replicas(now.size());
  for (const uint32_t expert : part.plan.expert_ids) {
    if (expert == part.shared_expert) {
      continue;
    }
    if (replicas[expert].missing()) {
      replicas[expert] = ReplicasOfSlice(before[expert], now[expert], part.plan.node);
      LeaveOutNodesThatFailed(part, &replicas[expert]);
    }
  }
  if (part.shared_expert < now.size()) {
    replicas[part.shared_expert] = FreshReplicas(part, now[part.shared_expert]);
  }
  return replicas;
}

bool BatchPart::OnlyShared() const {
  return std::all_of(plan.expert_ids.begin(), plan.expert_ids.end(),
                     [this](uint32_t expert) { return expert == shared_expert; });
}

bool BatchPart::CanGoElsewhere(const mesh::MeshView& now) const {
  if (last_attempt) {
    return OnlyShared();
  }
  const std::vector<ExpertReplicas> replicas = ReplicasFor(*this, now);
  const auto has_another = [&](uint32_t expert) {
    const std::vector<std::vector<NodeIndex>>& slices = replicas[expert].slices;
    return expert == shared_expert ||
           (!slices.empty() && std::any_of(slices[0].begin(), slices[0].end(),
                                           [this](NodeIndex node) { return node != plan.node; }));
  };
  return std::all_of(plan.expert_ids.begin(), plan.expert_ids.end(), has_another);
}

void BatchPart::Recycle() {
  Clear();
  observer = nullptr;
  layer = 0;
  shared_expert = ~uint32_t{0};
  view.reset();
  lost_by.clear();
  refused_by.clear();
  attempt = 1;
  last_attempt = false;
  why_lost = absl::OkStatus();
  contributes = false;
  doubtful_rows.clear();
  second_opinion = false;
}

size_t BatchPart::MemoryBytes() const {
  // The plan of a part that was lost is still here; others gave theirs back.
  return sizeof(*this) + plan.rows.capacity() * 2 * sizeof(uint32_t) +
         plan.expert_ids.capacity() * (sizeof(uint32_t) + sizeof(float)) +
         (nonfinite_rows.capacity() + doubtful_rows.capacity()) * sizeof(uint32_t);
}

}  // namespace expertmesh::batch
