// How the load of experts is divided between copies that exist: by flow along the experts that two
// nodes share.
#ifndef EXPERTMESH_COMMON_BALANCE_LOAD_LEVELLING_H_
#define EXPERTMESH_COMMON_BALANCE_LOAD_LEVELLING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/balance/layer_copies.h"

namespace expertmesh::balance {

// Not thread-safe. Memory is reused.
class LoadLevelling {
 public:
  // Takes rows from `node` until it is at `target`, and gives them to nodes below it that can be
  // reached over shared experts, nearest first. False: it is still above, and all of Reached() are
  // at `target` or above.
  bool Relieve(LayerCopies* copies, uint32_t node, double target);

  // Shares with the least fullest node that these copies allow (exact but for rounding), and that
  // level. `bound` is at most that level: where to begin.
  double LevelOut(LayerCopies* copies, double bound);

  // Nodes that rows of those that Relieve() was last called for could have gone to, themselves
  // among them; after LevelOut(), the nodes whose level is the least possible, unless it was
  // `bound`: they share no expert with others.
  absl::Span<const uint32_t> Reached() const { return queue_; }

 private:
  void BeginSearch(const LayerProblem& problem);
  void StartFrom(uint32_t node);
  // The next node below target; kNone when all that can be reached are at it.
  uint32_t Search(const LayerCopies& copies, double target);
  void PushTo(LayerCopies* copies, uint32_t node, double target);

  // Copies by which a node was reached: rows go from `from`, on the node before, to `to`.
  struct Step {
    uint32_t from = LayerCopies::kNone;
    uint32_t to = LayerCopies::kNone;
    uint64_t search = 0;
  };
  uint64_t search_ = 0;
  std::vector<Step> steps_;
  std::vector<uint64_t> expert_searched_;
  std::vector<uint32_t> queue_;
  size_t head_ = 0;
  std::vector<uint32_t> above_;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_LOAD_LEVELLING_H_
