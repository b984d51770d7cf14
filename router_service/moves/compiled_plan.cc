#include "router_service/moves/compiled_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh::moves {
namespace {

absl::Status CheckNodes(const balance::PlacementPlan& plan) {
  absl::flat_hash_set<std::string> names;
  for (const std::string& node_id : plan.nodes) {
    if (node_id.empty() || !names.insert(node_id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("plan.nodes lists '", node_id,
                       "' twice, or a node without a name; list each node_id once"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<NamedCopy>> Named(const balance::PlacementPlan& plan,
                                             const ExpertKey& key,
                                             const std::vector<balance::ExpertCopy>& copies) {
  const std::string what = absl::StrCat("plan: layer ", key.layer, " expert ", key.expert);
  if (copies.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " has no copy; name one node or more"));
  }
  std::vector<NamedCopy> named;
  for (const balance::ExpertCopy& copy : copies) {
    if (copy.node >= plan.nodes.size()) {
      return absl::InvalidArgumentError(absl::StrCat(what, " is on node ", copy.node, " of ",
                                                     plan.nodes.size(), "; list the node"));
    }
    const std::string& node_id = plan.nodes[copy.node];
    if (std::any_of(named.begin(), named.end(),
                    [&node_id](const NamedCopy& other) { return other.node_id == node_id; })) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " has two copies on node ", node_id, "; a node holds it once"));
    }
    named.push_back({node_id, copy.share});
  }
  return named;
}

}  // namespace

absl::StatusOr<CompiledPlanPtr> CompiledPlan::Make(
    std::shared_ptr<const balance::PlacementPlan> plan) {
  RETURN_IF_ERROR(CheckNodes(*plan));
  Copies copies;
  for (const balance::LayerPlacement& layer : plan->layers) {
    for (uint32_t expert = 0; expert < layer.experts.size(); ++expert) {
      const ExpertKey key{layer.layer, expert};
      ASSIGN_OR_RETURN(copies[key], Named(*plan, key, layer.experts[expert]));
    }
  }
  return CompiledPlanPtr(new CompiledPlan(std::move(plan), std::move(copies)));
}

CompiledPlanPtr CompiledPlan::FromCopies(Copies copies) {
  auto plan = std::make_shared<balance::PlacementPlan>();
  absl::btree_map<std::string, uint32_t> index;
  for (const auto& [key, named] : copies) {
    for (const NamedCopy& copy : named) {
      index[copy.node_id] = 0;
    }
  }
  for (auto& [node_id, at] : index) {
    at = static_cast<uint32_t>(plan->nodes.size());
    plan->nodes.push_back(node_id);
  }
  for (const auto& [key, named] : copies) {
    if (plan->layers.empty() || plan->layers.back().layer != key.layer) {
      plan->layers.push_back({key.layer, {}});
    }
    std::vector<std::vector<balance::ExpertCopy>>& experts = plan->layers.back().experts;
    experts.resize(key.expert + 1);
    for (const NamedCopy& copy : named) {
      experts[key.expert].push_back({index[copy.node_id], copy.share});
    }
    std::sort(experts[key.expert].begin(), experts[key.expert].end(),
              [](const auto& a, const auto& b) { return a.node < b.node; });
  }
  return CompiledPlanPtr(new CompiledPlan(std::move(plan), std::move(copies)));
}

CompiledPlan::CompiledPlan(std::shared_ptr<const balance::PlacementPlan> plan, Copies copies)
    : plan_(std::move(plan)), copies_(std::move(copies)) {
  for (const std::string& node_id : plan_->nodes) {
    on_node_[node_id];
  }
  for (const auto& [key, named] : copies_) {
    layers_.insert(key.layer);
    for (const NamedCopy& copy : named) {
      on_node_[copy.node_id].push_back(key);
    }
  }
}

const std::vector<NamedCopy>* CompiledPlan::CopiesOf(const ExpertKey& key) const {
  const auto found = copies_.find(key);
  return found == copies_.end() ? nullptr : &found->second;
}

bool CompiledPlan::Has(const std::string& node_id, const ExpertKey& key) const {
  const std::vector<NamedCopy>* const copies = CopiesOf(key);
  return copies != nullptr &&
         std::any_of(copies->begin(), copies->end(),
                     [&node_id](const NamedCopy& copy) { return copy.node_id == node_id; });
}

absl::Span<const ExpertKey> CompiledPlan::On(const std::string& node_id) const {
  const auto found = on_node_.find(node_id);
  return found == on_node_.end() ? absl::Span<const ExpertKey>()
                                 : absl::MakeConstSpan(found->second);
}

}  // namespace expertmesh::moves
