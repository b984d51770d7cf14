// Which node serves each expert of a batch: the part of planning that chooses.
//
// The rule is fewest transfers, a transfer being one token row sent to one node. Each costs its
// bytes twice (the row there, a partial back) on the router's link, which all nodes share, while
// the work of an expert is the same wherever it is done: so a batch keeps to few nodes, and work in
// flight, which is what other batches have put there, only settles ties. A busy mesh loses nothing
// by it. A lone batch whose experts cost more than its transfers would be done sooner if idle
// replicas shared them.
//
// Where a placement gives an expert's replicas shares, they come first: an expert with many rows in
// the batch is divided between its replicas, one with few goes to a replica that is owed rows, and
// only among these to the one with the fewest transfers.
#ifndef EXPERTMESH_ROUTER_SERVICE_PLAN_REPLICA_CHOICE_H_
#define EXPERTMESH_ROUTER_SERVICE_PLAN_REPLICA_CHOICE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "router_service/mesh/placement.h"
#include "router_service/plan/share_accounts.h"

namespace expertmesh::plan {

// Assignments to plan, row-major: those of rows[i] are [row_begin[i], row_begin[i + 1]).
struct Assignments {
  // Ascending.
  absl::Span<const uint32_t> rows;
  absl::Span<const uint32_t> row_begin;
  absl::Span<const uint32_t> expert_ids;
  absl::Span<const float> expert_weights;
  // Whose experts these are; what replicas are owed is counted by layer.
  uint32_t layer = 0;
};

// Token rows in flight to a node, at the time of planning.
using WorkOfNode = absl::FunctionRef<uint64_t(mesh::NodeIndex)>;

// Chooses one node for each slice of every expert hit, for all of its assignments, but where it
// divides an expert:
//   1. experts with one replica have no choice;
//   2. those with shares are divided, or go to one of the replicas that are owed most rows, to the
//      one where they add the fewest new rows;
//   3. others join a node in use, the one where they add the fewest new rows;
//   4. what no node in use holds goes to the node that can take most of the assignments left.
// Ties go to the node with the least work (rows in flight and assignments of this batch), then to
// placement order.
//
// Linear in assignments, plus hit experts x replicas x (1 + rows / 64), plus nodes squared. Memory
// is reused: after the largest batch was seen nothing is allocated. Not thread-safe.
class ReplicaChoice {
 public:
  struct Node {
    mesh::NodeIndex node = 0;
    uint64_t rows_in_flight = 0;
    // Assignments given to it; those of an expert in slices count once for each that it serves.
    uint32_t assignments = 0;
  };

  // `work` is asked once for each node that could serve. Every expert id is below replicas.size().
  void Choose(const std::vector<mesh::ExpertReplicas>& replicas, const Assignments& assignments,
              WorkOfNode work);

  // The results below are those of the last batch, and valid until the next.
  //
  // Nodes in use, in placement order.
  absl::Span<const Node> nodes() const { return used_; }
  // An expert is divided: those that are have to be asked for by ServingNext().
  bool divided() const { return !parts_.empty(); }
  // For an expert that was hit and is not divided, positions in nodes(), one per slice; empty when
  // it is missing.
  absl::Span<const uint32_t> Serving(uint32_t expert) const {
    const Serves& serves = serves_[expert];
    return {serving_.data() + serves.begin, serves.count};
  }
  // As Serving(), for the expert's next assignment: to be called once for each of the batch, in
  // order of rows.
  absl::Span<const uint32_t> ServingNext(uint32_t expert) {
    Serves& serves = serves_[expert];
    if (serves.part != kNone) {
      Part* part = &parts_[serves.part];
      if (part->assignments == 0) {
        part = &parts_[++serves.part];
        serving_[serves.begin] = part->node;
      }
      --part->assignments;
    }
    return Serving(expert);
  }
  // Some expert hit had more than one replica.
  bool had_a_choice() const { return had_a_choice_; }

  // Memory it keeps.
  size_t MemoryBytes() const;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};

  // One slice of one expert that the batch needs.
  struct Demand {
    uint32_t expert = 0;
    uint32_t assignments = 0;
    uint32_t serving = 0;  // Where in serving_ the answer goes.
    const std::vector<mesh::NodeIndex>* candidates = nullptr;
    // Null when it does not matter who serves.
    const std::vector<float>* shares = nullptr;
    bool served = false;
  };
  struct Candidate {
    Node node;
    bool chosen = false;
    uint64_t coverable = 0;        // Assignments of unserved demands that it could take.
    uint32_t first_entry = kNone;  // The first of its unserved demands.
  };
  // A demand in the list of one candidate.
  struct Entry {
    uint32_t demand = 0;
    uint32_t next = kNone;
  };
  struct Serves {
    uint32_t begin = 0;
    uint32_t count = 0;
    uint32_t part = kNone;  // In parts_, what its next assignment belongs to.
  };
  // Successive assignments of an expert that one node serves.
  struct Part {
    uint32_t node = 0;  // As in serving_.
    uint32_t assignments = 0;
  };

  void CountHits(size_t experts, absl::Span<const uint32_t> expert_ids);
  void CollectDemands(const std::vector<mesh::ExpertReplicas>& replicas, WorkOfNode work);
  void AddCandidate(mesh::NodeIndex node, WorkOfNode work);
  Candidate& candidate(mesh::NodeIndex node) { return candidates_[position_[node]]; }
  uint64_t* RowsOfExpert(uint32_t expert) { return &expert_rows_[set_of_expert_[expert] * words_]; }
  uint64_t* RowsOfNode(mesh::NodeIndex node) { return &node_rows_[position_[node] * words_]; }
  void CollectRows(const Assignments& assignments);
  uint64_t NewRows(const Demand& demand, mesh::NodeIndex node);
  static uint64_t Work(const Candidate& candidate) {
    return candidate.node.rows_in_flight + candidate.node.assignments;
  }
  void ServeBy(Demand& demand, mesh::NodeIndex node);
  void ServeByShares(const std::vector<mesh::ExpertReplicas>& replicas, uint32_t layer);
  // Position in the demand's candidates.
  size_t MostOwed(const Demand& demand, absl::Span<const float> owed);
  void Divide(Demand* demand, absl::Span<float> owed);
  void ServePartBy(const Demand& demand, mesh::NodeIndex node, uint32_t before, uint32_t part);
  void JoinChosen();
  void ListUnserved();
  // Null when nothing is left to cover.
  Candidate* MostCovering();
  void CoverTheRest();
  void SortUsed();

  bool had_a_choice_ = false;
  std::vector<uint32_t> hits_;      // [experts] All zero between calls.
  std::vector<uint64_t> hit_bits_;  // [experts / 64] Likewise.
  bool has_shares_ = false;
  ShareAccounts accounts_;
  std::vector<Part> parts_;
  std::vector<Demand> demands_;
  std::vector<Candidate> candidates_;
  std::vector<uint32_t> position_;  // [nodes] In candidates_; kNone between calls.
  std::vector<Entry> entries_;
  std::vector<Serves> serves_;  // [experts]
  std::vector<uint32_t> serving_;
  std::vector<Node> used_;
  // Sets of rows, `words_` words each, kept only when there is a choice.
  size_t words_ = 0;
  std::vector<uint32_t> set_of_expert_;  // [experts]
  std::vector<uint64_t> expert_rows_;
  std::vector<uint64_t> node_rows_;
};

}  // namespace expertmesh::plan

#endif  // EXPERTMESH_ROUTER_SERVICE_PLAN_REPLICA_CHOICE_H_
