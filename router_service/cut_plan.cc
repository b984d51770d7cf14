#include "router_service/cut_plan.h"

#include <algorithm>
#include <utility>

namespace expertmesh {

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

}  // namespace expertmesh
