// A placement plan as a move looks things up in it.
#ifndef EXPERTMESH_ROUTER_SERVICE_MOVES_COMPILED_PLAN_H_
#define EXPERTMESH_ROUTER_SERVICE_MOVES_COMPILED_PLAN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/balance/placement_plan.h"
#include "router_service/moves/movable_nodes.h"

namespace expertmesh::moves {

// A copy by the name of its node.
struct NamedCopy {
  std::string node_id;
  float share = 0;

  friend bool operator==(const NamedCopy&, const NamedCopy&) = default;
};

// Immutable, thread-safe.
class CompiledPlan {
 public:
  using Copies = absl::btree_map<ExpertKey, std::vector<NamedCopy>>;

  // INVALID_ARGUMENT naming what is wrong: an expert without a copy or with two on one node, a node
  // that is not listed or is listed twice.
  static absl::StatusOr<std::shared_ptr<const CompiledPlan>> Make(
      std::shared_ptr<const balance::PlacementPlan> plan);
  // From copies: those of a layer are of all its experts.
  static std::shared_ptr<const CompiledPlan> FromCopies(Copies copies);

  const std::shared_ptr<const balance::PlacementPlan>& plan() const { return plan_; }
  const Copies& copies() const { return copies_; }
  // Null: the plan does not speak of the expert.
  const std::vector<NamedCopy>* CopiesOf(const ExpertKey& key) const;
  bool Has(const std::string& node_id, const ExpertKey& key) const;
  bool HasLayer(uint32_t layer) const { return layers_.contains(layer); }
  bool HasNode(const std::string& node_id) const { return on_node_.contains(node_id); }
  // Ascending.
  absl::Span<const ExpertKey> On(const std::string& node_id) const;

 private:
  CompiledPlan(std::shared_ptr<const balance::PlacementPlan> plan, Copies copies);

  const std::shared_ptr<const balance::PlacementPlan> plan_;
  const Copies copies_;
  absl::flat_hash_set<uint32_t> layers_;
  // Every node that the plan knows.
  absl::flat_hash_map<std::string, std::vector<ExpertKey>> on_node_;
};

using CompiledPlanPtr = std::shared_ptr<const CompiledPlan>;

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_ROUTER_SERVICE_MOVES_COMPILED_PLAN_H_
