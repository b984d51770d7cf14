// A search among changes of single copies, each judged by the best shares that it allows.
#ifndef EXPERTMESH_COMMON_BALANCE_COPY_SEARCH_H_
#define EXPERTMESH_COMMON_BALANCE_COPY_SEARCH_H_

#include <cstdint>
#include <vector>

#include "common/balance/layer_copies.h"
#include "common/balance/load_levelling.h"

namespace expertmesh::balance {

// Dear, and thorough: for what steps that look at two nodes alone do not find. Not thread-safe.
// Memory is reused.
class CopySearch {
 public:
  // Copies of `held` cost nothing to load. Both outlive it.
  CopySearch(const LayerCopies* held, LoadLevelling* levelling)
      : held_(*held), levelling_(*levelling) {}

  // Lowers the level of `copies`, whose shares are level, until it is at `target` or nothing more
  // is found: copies on the fullest nodes move, change places with others, or are added in a free
  // slot or in the place of one that can go. At most `most_loads` are loaded in all, of which there
  // are `*loads`. It ends after `most_effort` nodes and experts that trials had to look at. True:
  // it did.
  bool Improve(LayerCopies* copies, double bound, double target, uint32_t most_loads,
               uint64_t most_effort, uint32_t* loads);

 private:
  uint32_t CostOf(const LayerCopies::Copy& copy) const {
    return held_.Holds(copy.expert, copy.node) ? 0 : 1;
  }
  bool StepOnce(LayerCopies* copies);
  bool TryOf(LayerCopies* copies, uint32_t from, uint32_t node);
  // The copy on `node` (kNone: none) goes, to the other node if `exchange`, `from` comes there, and
  // stays where it is if `keep`.
  bool Try(LayerCopies* copies, uint32_t from, uint32_t node, uint32_t to, bool exchange,
           bool keep);
  bool KeepsSpread(const LayerCopies& copies, uint32_t expert) const;

  const LayerCopies& held_;
  LoadLevelling& levelling_;
  LayerCopies trial_;
  std::vector<uint32_t> fullest_;
  double bound_ = 0;
  double level_ = 0;
  uint32_t most_loads_ = 0;
  uint32_t loads_ = 0;
  uint64_t most_effort_ = 0;
  uint64_t effort_ = 0;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_COPY_SEARCH_H_
