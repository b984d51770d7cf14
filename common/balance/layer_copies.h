// The copies of one layer's experts while a plan is made, with how much of the load each takes.
#ifndef EXPERTMESH_COMMON_BALANCE_LAYER_COPIES_H_
#define EXPERTMESH_COMMON_BALANCE_LAYER_COPIES_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace expertmesh::balance {

// One layer to plan; positions of experts, nodes and zones are indices. The spans' owner keeps
// them.
struct LayerProblem {
  // [experts] Expected assignments, in any unit.
  absl::Span<const double> loads;
  // [nodes] Assignments that a node does in a unit of time.
  absl::Span<const double> rates;
  // [nodes] Copies of this layer that there is room for.
  absl::Span<const uint32_t> slots;
  // [nodes]
  absl::Span<const uint32_t> zones;
  // [nodes] Nonzero: may get copies that it does not have.
  absl::Span<const uint8_t> accepts;
  uint32_t min_copies = 1;
  uint32_t max_copies = 1;
  // In how many zones an expert must have copies.
  uint32_t zones_required = 1;

  uint32_t experts() const { return static_cast<uint32_t>(loads.size()); }
  uint32_t nodes() const { return static_cast<uint32_t>(rates.size()); }
};

// Not thread-safe. Memory is reused: after the largest layer nothing is allocated.
class LayerCopies {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  struct Copy {
    uint32_t expert = 0;
    uint32_t node = 0;
    // What it serves of the expert's load, in its unit.
    double rows = 0;
    uint32_t next_of_expert = kNone;
    uint32_t next_of_node = kNone;
  };

  // No copies. `problem` is valid as long as this is used.
  void Reset(const LayerProblem& problem);

  // The node does not hold the expert yet.
  uint32_t Add(uint32_t expert, uint32_t node, double rows);
  // Its rows are gone with it. The index may be used again.
  void Remove(uint32_t copy);
  // As Remove(), and other copies of the expert take its rows: those on nodes below `target` as far
  // as they have room, and the one on the least full node what is left.
  void Dissolve(uint32_t copy, double target);
  // Rows that other copies of the expert can take until their nodes are at `target`.
  double RoomOfOthers(uint32_t copy, double target) const;
  void AddRows(uint32_t copy, double rows) {
    copies_[copy].rows += rows;
    rows_[copies_[copy].node] += rows;
  }
  void ShiftRows(uint32_t from, uint32_t to, double rows);
  // Copies and their rows are those of `other`, whose problem is the same.
  void CopyFrom(const LayerCopies& other);

  // kNone when there is none.
  uint32_t Find(uint32_t expert, uint32_t node) const;
  // The copy of the same expert that is on the least full other node; kNone when it is the only
  // one.
  uint32_t LeastFullOther(uint32_t copy) const;
  bool Holds(uint32_t expert, uint32_t node) const { return Find(expert, node) != kNone; }

  const LayerProblem& problem() const { return *problem_; }
  const Copy& copy(uint32_t index) const { return copies_[index]; }
  // First copies of lists that go on with next_of_expert and next_of_node.
  uint32_t first_of_expert(uint32_t expert) const { return experts_[expert].first; }
  uint32_t first_of_node(uint32_t node) const { return nodes_[node].first; }
  uint32_t count_of_expert(uint32_t expert) const { return experts_[expert].count; }
  uint32_t count_of_node(uint32_t node) const { return nodes_[node].count; }
  uint32_t free_slots(uint32_t node) const {
    return problem_->slots[node] - std::min(problem_->slots[node], count_of_node(node));
  }

  double rows_of_node(uint32_t node) const { return rows_[node]; }
  // Time that the node's share of the layer takes.
  double Level(uint32_t node) const { return rows_[node] / problem_->rates[node]; }
  // Rows that the node is short of `target`; negative: above it.
  double Room(uint32_t node, double target) const {
    return (target * problem_->rates[node]) - rows_[node];
  }
  // The first of the fullest nodes.
  uint32_t FullestNode() const;
  double FullestLevel() const { return Level(FullestNode()); }

  // Zones of the copies of an expert, when `without` (kNone: none) has gone, and `also` (kNone:
  // none) is a node that has one more.
  uint32_t ZonesOf(uint32_t expert, uint32_t without, uint32_t also) const;
  // The expert has copies enough without it.
  bool MayGo(uint32_t copy) const;
  // A node that may get it: accepts copies, and does not hold it.
  bool MayGet(uint32_t expert, uint32_t node) const {
    return problem_->accepts[node] != 0 && !Holds(expert, node);
  }

  // Sums of nodes from their copies alone: sums that were kept up to date have lost last digits.
  void SumAgain();

 private:
  struct List {
    uint32_t first = kNone;
    uint32_t count = 0;
  };

  const LayerProblem* problem_ = nullptr;
  std::vector<Copy> copies_;
  std::vector<uint32_t> unused_;
  std::vector<List> experts_;
  std::vector<List> nodes_;
  std::vector<double> rows_;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_LAYER_COPIES_H_
