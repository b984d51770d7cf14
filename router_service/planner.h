// The plan of one batch: which node computes which assignments, with one copy of each token row per
// node.
#ifndef EXPERTMESH_ROUTER_SERVICE_PLANNER_H_
#define EXPERTMESH_ROUTER_SERVICE_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "router_service/placement.h"

namespace expertmesh {

// What one node gets: distinct token rows, each with its assignments in slot order.
struct NodePlan {
  NodeIndex node = 0;
  // Rows of the batch, ascending, each once.
  std::vector<uint32_t> rows;
  // Assignments of rows[i] are [row_begin[i], row_begin[i + 1]).
  std::vector<uint32_t> row_begin;
  std::vector<uint32_t> expert_ids;
  std::vector<float> expert_weights;
};

// An assignment that no node can take.
struct Unplaced {
  uint32_t row = 0;
  uint32_t expert = 0;
};

struct BatchPlan {
  // In placement order; at most one plan per node unless a node's row limit cuts it.
  std::vector<NodePlan> nodes;
  // In order of rows.
  std::vector<Unplaced> unplaced;
};

// Assignments to plan, row-major: those of rows[i] are [row_begin[i], row_begin[i + 1]).
struct Assignments {
  absl::Span<const uint32_t> rows;
  absl::Span<const uint32_t> row_begin;
  absl::Span<const uint32_t> expert_ids;
  absl::Span<const float> expert_weights;
};

// How busy and how large a node is, at the time of planning.
struct NodeLoad {
  uint64_t rows_in_flight = 0;
  // Rows in one batch at most; larger plans are cut.
  uint32_t max_batch_rows = 0;
};

// For every expert hit, chooses one node per slice so that few nodes are used in all: experts with
// one replica decide first, the others join a node already in use where they can, else the node
// that covers most of what is left; ties go to the node with least work in flight, then to
// placement order.
//
// Linear in the number of assignments (plus experts x replicas). `load` answers for any node of
// `replicas`.
BatchPlan PlanBatch(const std::vector<ExpertReplicas>& replicas, const Assignments& assignments,
                    const std::function<NodeLoad(NodeIndex)>& load);

}  // namespace expertmesh

#endif  // EXPERTMESH_ROUTER_SERVICE_PLANNER_H_
