// Where the shared experts of a batch are computed, when nodes hold them.
//
// Every row has them, whatever it is routed to, and any holder will do: so their rows are ballast,
// which goes where the batch has the least work. A row stays with a node that it is sent to anyway
// as long as that one is about as free as the others, since it costs no transfer there.
#ifndef EXPERTMESH_ROUTER_SERVICE_PLAN_SHARED_PLACEMENT_H_
#define EXPERTMESH_ROUTER_SERVICE_PLAN_SHARED_PLACEMENT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "router_service/mesh/placement.h"
#include "router_service/plan/node_plan.h"
#include "router_service/plan/planner.h"
#include "router_service/plan/replica_choice.h"

namespace expertmesh::plan {

// Shared experts of a layer, taken as one, for the rows 0, 1, 2, ... of a batch.
struct SharedDemand {
  // Their id (MoeLayerDescription::shared_expert_id).
  uint32_t expert = 0;
  // [rows] What their output for a row is multiplied by.
  absl::Span<const float> weights;
  // Parameters of a routed expert and of the shared ones: what one assignment costs. Not 0.
  uint64_t routed_parameters = 1;
  uint64_t shared_parameters = 1;
  // Set when the router is to take its part of the rows although nodes hold the experts: the
  // parameters that it has to compute already.
  std::optional<uint64_t> work_here = std::nullopt;
};

// Work is counted in parameters: assignments that the plan gives a node, and rows in flight to it,
// which count as one routed assignment each. With W the level to which all holders could be filled
// by these rows:
//   1. a row goes to a holder that it is sent to anyway, and that stays below W plus an eighth (or
//      one row), to the one with the least work; ties go to placement order;
//   2. the other rows fill the holders up evenly, in runs of rows.
// Linear in rows, transfers and holders (times their logarithm). Memory is reused: after the
// largest batch was seen, and as long as node plans come back to the pool, nothing is allocated.
// Not thread-safe.
class SharedPlacement {
 public:
  // Adds to `plan`, that of the routed assignments of these rows, an assignment for each row, last
  // in its row. `nodes`: who holds the experts, in placement order; without any all rows are the
  // router's. Estimated uniform transfers take the rows that go to a node for this alone as they
  // are.
  void Place(const std::vector<mesh::NodeIndex>& nodes, const SharedDemand& demand, WorkOfNode work,
             NodePlanPool* pool, BatchPlan* plan);

  // Rows that the router computes; ascending. Valid until the next call.
  absl::Span<const uint32_t> rows_here() const { return rows_here_; }

  // Memory it keeps.
  size_t MemoryBytes() const;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  // In place of a node: the router.
  static constexpr mesh::NodeIndex kHere = ~mesh::NodeIndex{0};

  // Who may compute them.
  struct Holder {
    mesh::NodeIndex node = 0;
    uint32_t plan = kNone;  // Position in the batch plan; kNone: nothing is sent there yet.
    uint64_t work = 0;
    uint32_t room = 0;   // Rows still to be given in the second step.
    uint32_t given = 0;  // Rows.
  };

  void CollectHolders(const std::vector<mesh::NodeIndex>& nodes, const SharedDemand& demand,
                      WorkOfNode work, const BatchPlan& plan);
  void CollectWhoHas(size_t rows, const BatchPlan& plan);
  // Orders holders by work.
  void SortByWork();
  // How far `rows` more would fill the holders, the least filled first; they are in order.
  uint64_t Level(uint64_t rows) const;
  // Gives rows to holders that they are sent to anyway; how many are left.
  uint32_t KeepTogether(size_t rows);
  void SpreadRest(size_t rows, uint32_t left);
  void Give(uint32_t row, uint32_t holder);
  void ListRows(size_t rows);
  absl::Span<const uint32_t> RowsOf(uint32_t holder) const;
  void AddRows(uint32_t holder, const SharedDemand& demand, NodePlanPool* pool, BatchPlan* plan);

  uint64_t cost_ = 1;            // Parameters of a row.
  uint32_t here_ = kNone;        // The router, among the holders.
  std::vector<Holder> holders_;  // In placement order, the router last.
  std::vector<uint32_t> by_work_;
  // Holders that row r is sent to anyway: who_has_[has_begin_[r]] to before has_begin_[r + 1].
  std::vector<uint32_t> has_begin_;
  std::vector<uint32_t> who_has_;
  std::vector<uint32_t> holder_of_;  // [rows]
  // Rows by holder, and where those of each begin.
  std::vector<uint32_t> given_rows_;
  std::vector<uint32_t> given_begin_;
  NodePlan nothing_;
  std::vector<NodePlan> spare_;
  std::vector<uint32_t> rows_here_;
};

}  // namespace expertmesh::plan

#endif  // EXPERTMESH_ROUTER_SERVICE_PLAN_SHARED_PLACEMENT_H_
