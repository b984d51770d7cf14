#include "router_service/plan/node_plan.h"

#include <algorithm>
#include <utility>

namespace expertmesh::plan {
namespace {

size_t BytesOf(const NodePlan& plan) {
  return (plan.rows.capacity() + plan.row_begin.capacity() + plan.expert_ids.capacity()) *
             sizeof(uint32_t) +
         plan.expert_weights.capacity() * sizeof(float);
}

// Rows [begin, end) of `whole`.
void CopyRows(const NodePlan& whole, size_t begin, size_t end, NodePlan* piece) {
  const uint32_t first = whole.row_begin[begin];
  const uint32_t last = whole.row_begin[end];
  piece->node = whole.node;
  piece->Resize(end - begin, last - first);
  std::copy(whole.rows.begin() + begin, whole.rows.begin() + end, piece->rows.begin());
  for (size_t row = begin; row <= end; ++row) {
    piece->row_begin[row - begin] = whole.row_begin[row] - first;
  }
  std::copy(whole.expert_ids.begin() + first, whole.expert_ids.begin() + last,
            piece->expert_ids.begin());
  std::copy(whole.expert_weights.begin() + first, whole.expert_weights.begin() + last,
            piece->expert_weights.begin());
}

// A plan for `node` without rows.
NodePlan EmptyPlan(mesh::NodeIndex node, NodePlanPool* pool) {
  std::vector<NodePlan> taken;
  pool->Take(1, &taken);
  NodePlan plan = std::move(taken.back());
  plan.node = node;
  plan.rows.clear();
  plan.row_begin.assign(1, 0);
  plan.expert_ids.clear();
  plan.expert_weights.clear();
  return plan;
}

// Appends row `i` of `from`, with its assignments.
void AppendRow(const NodePlan& from, size_t i, NodePlan* to) {
  const auto append = [begin = from.row_begin[i], end = from.row_begin[i + 1]](const auto& source,
                                                                               auto* target) {
    target->insert(target->end(), source.begin() + begin, source.begin() + end);
  };
  to->rows.push_back(from.rows[i]);
  append(from.expert_ids, &to->expert_ids);
  append(from.expert_weights, &to->expert_weights);
  to->row_begin.push_back(static_cast<uint32_t>(to->expert_ids.size()));
}

}  // namespace

void NodePlan::Resize(size_t row_count, size_t assignments) {
  rows.resize(row_count);
  row_begin.resize(row_count + 1);
  expert_ids.resize(assignments);
  expert_weights.resize(assignments);
}

void NodePlanPool::Take(size_t count, std::vector<NodePlan>* plans) {
  const size_t wanted = plans->size() + count;
  {
    absl::MutexLock lock(&mutex_);
    while (plans->size() < wanted && !free_.empty()) {
      bytes_ -= BytesOf(free_.back());
      plans->push_back(std::move(free_.back()));
      free_.pop_back();
    }
  }
  plans->resize(wanted);
}

void NodePlanPool::Keep(NodePlan& plan) {
  const size_t bytes = BytesOf(plan);
  if (bytes > 0 && bytes_ + bytes <= kMaxBytes) {
    bytes_ += bytes;
    free_.push_back(std::move(plan));
  }
}

void NodePlanPool::Recycle(std::vector<NodePlan>* plans) {
  {
    absl::MutexLock lock(&mutex_);
    for (NodePlan& plan : *plans) {
      Keep(plan);
    }
  }
  plans->clear();
}

void NodePlanPool::Recycle(NodePlan plan) {
  absl::MutexLock lock(&mutex_);
  Keep(plan);
}

void NodePlanPool::Shed() {
  std::vector<NodePlan> free;  // Destroyed after the lock is gone.
  absl::MutexLock lock(&mutex_);
  free.swap(free_);
  bytes_ = 0;
}

void CutToRows(NodePlan plan, uint32_t limit, NodePlanPool* pool, std::vector<NodePlan>* pieces) {
  if (limit == 0 || plan.rows.size() <= limit) {
    pieces->push_back(std::move(plan));
    return;
  }
  for (size_t begin = 0; begin < plan.rows.size(); begin += limit) {
    pool->Take(1, pieces);
    CopyRows(plan, begin, std::min(plan.rows.size(), begin + limit), &pieces->back());
  }
  pool->Recycle(std::move(plan));
}

void CutToAssignments(NodePlan plan, uint32_t limit, NodePlanPool* pool,
                      std::vector<NodePlan>* pieces) {
  const uint32_t total = static_cast<uint32_t>(plan.expert_ids.size());
  if (limit == 0 || total <= limit) {
    pieces->push_back(std::move(plan));
    return;
  }
  size_t row = 0;
  for (uint32_t begin = 0; begin < total; begin += limit) {
    const uint32_t end = std::min(total, begin + limit);
    pool->Take(1, pieces);
    NodePlan& piece = pieces->back();
    piece.node = plan.node;
    piece.rows.clear();
    piece.row_begin.clear();
    while (plan.row_begin[row + 1] <= begin) {
      ++row;
    }
    // The next piece looks at the last of these rows again: it may have assignments left.
    for (size_t at = row; at < plan.rows.size() && plan.row_begin[at] < end; ++at) {
      row = at;
      piece.rows.push_back(plan.rows[at]);
      piece.row_begin.push_back(std::max(plan.row_begin[at], begin) - begin);
    }
    piece.row_begin.push_back(end - begin);
    piece.expert_ids.assign(plan.expert_ids.begin() + begin, plan.expert_ids.begin() + end);
    piece.expert_weights.assign(plan.expert_weights.begin() + begin,
                                plan.expert_weights.begin() + end);
  }
  pool->Recycle(std::move(plan));
}

NodePlan TakeRows(absl::Span<const uint32_t> rows, NodePlanPool* pool, NodePlan* plan) {
  NodePlan taken = EmptyPlan(plan->node, pool);
  NodePlan left = EmptyPlan(plan->node, pool);
  size_t next = 0;
  for (size_t i = 0; i < plan->rows.size(); ++i) {
    const bool takes = next < rows.size() && rows[next] == plan->rows[i];
    next += takes ? 1 : 0;
    AppendRow(*plan, i, takes ? &taken : &left);
  }
  std::swap(*plan, left);
  pool->Recycle(std::move(left));
  return taken;
}

}  // namespace expertmesh::plan
