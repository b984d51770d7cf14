// A level that the fullest node of a layer cannot be below, whatever the plan.
#ifndef EXPERTMESH_COMMON_BALANCE_FULLEST_NODE_BOUND_H_
#define EXPERTMESH_COMMON_BALANCE_FULLEST_NODE_BOUND_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/balance/layer_copies.h"

namespace expertmesh::balance {

// Not thread-safe. Memory is reused.
class FullestNodeBound {
 public:
  // The largest of
  //   1. all rows over all rates, where a node does no more rows than its slots can have;
  //   2. the largest expert over the max_copies highest rates;
  //   3. the level at which all experts have copies enough, each no more than its node can do, in
  //      the slots that there are;
  //   4. where there is a slot for each expert and no more, the largest with the smallest others.
  // `by_load`: experts by load, descending. `held`: copies at present, all that nodes which accept
  // none can have.
  double Of(const LayerProblem& problem, absl::Span<const uint32_t> by_load,
            const LayerCopies& held);

 private:
  void CollectNodes(const LayerProblem& problem, absl::Span<const uint32_t> by_load,
                    const LayerCopies& held);
  double ByRows(double rows);

  struct Node {
    double rate = 0;
    double most_rows = 0;
  };
  std::vector<Node> nodes_;
  std::vector<double> sums_;  // [experts + 1] Of the largest loads.
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_FULLEST_NODE_BOUND_H_
