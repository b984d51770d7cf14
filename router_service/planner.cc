#include "router_service/planner.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/base/check.h"

namespace expertmesh {
namespace {

// One slice of one expert that the batch needs, and who can serve it.
struct Demand {
  uint32_t expert = 0;
  uint32_t assignments = 0;
  std::vector<NodeIndex> candidates;
};

// What is known of a node while choosing.
struct Candidate {
  NodeLoad load;
  bool chosen = false;
  // Assignments of demands not yet served that it could take.
  uint64_t coverable = 0;
  // Assignments given to it by this plan.
  uint64_t given = 0;
};

// Chosen nodes, slice by slice, for every expert.
class ServingNodes {
 public:
  explicit ServingNodes(size_t experts) : nodes_(experts) {}

  void Add(uint32_t expert, NodeIndex node) { nodes_[expert].push_back(node); }
  void Clear(uint32_t expert) { nodes_[expert].clear(); }
  const std::vector<NodeIndex>& For(uint32_t expert) const { return nodes_[expert]; }

 private:
  std::vector<std::vector<NodeIndex>> nodes_;
};

class Chooser {
 public:
  Chooser(const std::vector<ExpertReplicas>& replicas,
          const std::function<NodeLoad(NodeIndex)>& load)
      : replicas_(replicas), load_(load) {}

  // `hits`: assignments of each expert.
  ServingNodes Run(const std::vector<uint32_t>& hits) {
    ServingNodes choice(replicas_.size());
    std::vector<Demand> open = CollectDemands(hits);
    // Experts with one replica have no choice to make.
    std::vector<Demand> free;
    for (Demand& demand : open) {
      if (demand.candidates.size() == 1) {
        Give(demand, demand.candidates.front(), &choice);
      } else {
        free.push_back(std::move(demand));
      }
    }
    while (!free.empty()) {
      free = JoinChosen(std::move(free), &choice);
      if (!free.empty()) {
        nodes_[MostCovering(free)].chosen = true;
      }
    }
    return choice;
  }

 private:
  std::vector<Demand> CollectDemands(const std::vector<uint32_t>& hits) {
    std::vector<Demand> demands;
    for (uint32_t expert = 0; expert < hits.size(); ++expert) {
      if (hits[expert] == 0) {
        continue;
      }
      for (const std::vector<NodeIndex>& slice : replicas_[expert].slices) {
        demands.push_back({expert, hits[expert], slice});
      }
    }
    for (const Demand& demand : demands) {
      for (const NodeIndex node : demand.candidates) {
        if (!nodes_.contains(node)) {
          nodes_[node].load = load_(node);
        }
      }
    }
    return demands;
  }

  void Give(const Demand& demand, NodeIndex node, ServingNodes* choice) {
    Candidate& candidate = nodes_[node];
    candidate.chosen = true;
    candidate.given += demand.assignments;
    choice->Add(demand.expert, node);
  }

  // Serves every demand that a chosen node can take; returns the others.
  std::vector<Demand> JoinChosen(std::vector<Demand> demands, ServingNodes* choice) {
    std::vector<Demand> left;
    for (Demand& demand : demands) {
      std::optional<NodeIndex> best;
      for (const NodeIndex node : demand.candidates) {
        if (nodes_[node].chosen && (!best || Work(node) < Work(*best))) {
          best = node;
        }
      }
      if (best) {
        Give(demand, *best, choice);
      } else {
        left.push_back(std::move(demand));
      }
    }
    return left;
  }

  uint64_t Work(NodeIndex node) const {
    const Candidate& candidate = nodes_.at(node);
    return candidate.load.rows_in_flight + candidate.given;
  }

  NodeIndex MostCovering(const std::vector<Demand>& demands) {
    for (auto& [node, candidate] : nodes_) {
      candidate.coverable = 0;
    }
    for (const Demand& demand : demands) {
      for (const NodeIndex node : demand.candidates) {
        nodes_[node].coverable += demand.assignments;
      }
    }
    std::optional<NodeIndex> best;
    const auto better = [this](NodeIndex a, NodeIndex b) {
      const Candidate& left = nodes_.at(a);
      const Candidate& right = nodes_.at(b);
      if (left.coverable != right.coverable) {
        return left.coverable > right.coverable;
      }
      return Work(a) != Work(b) ? Work(a) < Work(b) : a < b;
    };
    for (const auto& [node, candidate] : nodes_) {
      if (candidate.coverable > 0 && (!best || better(node, *best))) {
        best = node;
      }
    }
    EXPERTMESH_CHECK(best.has_value());
    return *best;
  }

  const std::vector<ExpertReplicas>& replicas_;
  const std::function<NodeLoad(NodeIndex)>& load_;
  absl::flat_hash_map<NodeIndex, Candidate> nodes_;
};

// Cuts plans into pieces of at most the node's batch limit.
std::vector<NodePlan> CutToLimit(NodePlan plan, uint32_t limit) {
  std::vector<NodePlan> pieces;
  if (limit == 0 || plan.rows.size() <= limit) {
    pieces.push_back(std::move(plan));
    return pieces;
  }
  for (size_t begin = 0; begin < plan.rows.size(); begin += limit) {
    const size_t end = std::min(plan.rows.size(), begin + limit);
    NodePlan piece;
    piece.node = plan.node;
    piece.rows.assign(plan.rows.begin() + begin, plan.rows.begin() + end);
    const uint32_t first = plan.row_begin[begin];
    for (size_t row = begin; row <= end; ++row) {
      piece.row_begin.push_back(plan.row_begin[row] - first);
    }
    piece.expert_ids.assign(plan.expert_ids.begin() + first,
                            plan.expert_ids.begin() + plan.row_begin[end]);
    piece.expert_weights.assign(plan.expert_weights.begin() + first,
                                plan.expert_weights.begin() + plan.row_begin[end]);
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

}  // namespace

BatchPlan PlanBatch(const std::vector<ExpertReplicas>& replicas, const Assignments& assignments,
                    const std::function<NodeLoad(NodeIndex)>& load) {
  std::vector<uint32_t> hits(replicas.size(), 0);
  for (const uint32_t expert : assignments.expert_ids) {
    EXPERTMESH_CHECK(expert < replicas.size());
    ++hits[expert];
  }
  const ServingNodes choice = Chooser(replicas, load).Run(hits);

  BatchPlan plan;
  std::vector<NodePlan> by_node;  // Indexed through `slot_of_node`.
  absl::flat_hash_map<NodeIndex, size_t> slot_of_node;
  for (size_t i = 0; i < assignments.rows.size(); ++i) {
    const uint32_t row = assignments.rows[i];
    for (uint32_t a = assignments.row_begin[i]; a < assignments.row_begin[i + 1]; ++a) {
      const uint32_t expert = assignments.expert_ids[a];
      const std::vector<NodeIndex>& nodes = choice.For(expert);
      if (nodes.empty()) {
        plan.unplaced.push_back({row, expert});
        continue;
      }
      for (const NodeIndex node : nodes) {
        const auto [slot, added] = slot_of_node.try_emplace(node, by_node.size());
        if (added) {
          by_node.push_back({});
          by_node.back().node = node;
        }
        NodePlan& target = by_node[slot->second];
        if (target.rows.empty() || target.rows.back() != row) {
          target.rows.push_back(row);
          target.row_begin.push_back(static_cast<uint32_t>(target.expert_ids.size()));
        }
        target.expert_ids.push_back(expert);
        target.expert_weights.push_back(assignments.expert_weights[a]);
      }
    }
  }
  std::sort(by_node.begin(), by_node.end(),
            [](const NodePlan& a, const NodePlan& b) { return a.node < b.node; });
  for (NodePlan& node_plan : by_node) {
    node_plan.row_begin.push_back(static_cast<uint32_t>(node_plan.expert_ids.size()));
    const uint32_t limit = load(node_plan.node).max_batch_rows;
    for (NodePlan& piece : CutToLimit(std::move(node_plan), limit)) {
      plan.nodes.push_back(std::move(piece));
    }
  }
  return plan;
}

}  // namespace expertmesh
