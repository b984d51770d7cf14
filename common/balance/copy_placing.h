// Places the copies that the experts of a layer must have.
#ifndef EXPERTMESH_COMMON_BALANCE_COPY_PLACING_H_
#define EXPERTMESH_COMMON_BALANCE_COPY_PLACING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/balance/layer_copies.h"
#include "common/balance/least_level_tree.h"

namespace expertmesh::balance {

// Largest experts first, each on the least full node that has a slot. While it can, it leaves a
// slot free on every node, for copies that level them. Not thread-safe. Memory is reused.
class CopyPlacing {
 public:
  // `by_load`: experts by load, descending. `level`: what nodes are meant to come to. `may_split`:
  // experts that are too large for a node at that level may get more copies than they must have.
  // False: there is no room for all, missing_expert() is the first.
  bool Place(LayerCopies* copies, absl::Span<const uint32_t> by_load, double level, bool may_split);

  // The same where Place() found no room, from the same copies: of those that experts have, as few
  // stay as they must have, so that slots are free for others, and copies on nodes that accept none
  // before others, since these take no slots.
  bool PlaceTightly(LayerCopies* copies, absl::Span<const uint32_t> by_load, double level);

  uint32_t missing_expert() const { return missing_expert_; }

 private:
  // Which of the copies that an expert can do without goes first.
  enum class Goes { kFewestRows, kTakesASlot };

  bool PlaceMissing(absl::Span<const uint32_t> by_load, bool may_split);
  // In how many more zones it must have copies.
  uint32_t MissingZones(uint32_t expert) const;
  // What an expert must have and has not.
  uint32_t Missing(uint32_t expert) const;
  void DropAbove(uint32_t most, Goes first, uint32_t expert);
  void DropWhatHasNoSlot();
  bool CountMissing();
  void LimitNodes();
  void UseAllSlots();
  void SetKey(uint32_t node);
  // Copies of an expert that is too large for one node, none above `largest`; 0 for others.
  uint32_t Pieces(uint32_t expert, double largest) const;
  double LargestPiece(absl::Span<const uint32_t> by_load) const;
  bool PlaceExpert(uint32_t expert, uint32_t required, uint32_t pieces);
  bool FitsSpread(uint32_t expert, uint32_t node) const;
  uint32_t Choose(uint32_t expert, double rows) const;
  // A node for `expert` where a slot was made free by others' moves; kNone when there is none.
  uint32_t MakeRoom(uint32_t expert);
  bool FreeHere(uint32_t node, uint32_t expert);
  void MoveAlong(uint32_t node);
  void SpreadSearch(uint32_t node, uint32_t expert);

  LayerCopies* copies_ = nullptr;
  double level_ = 0;
  double mean_rate_ = 1;
  bool rates_alike_ = true;
  uint32_t missing_ = 0;
  uint32_t spare_ = 0;
  bool all_slots_ = false;
  uint32_t missing_expert_ = LayerCopies::kNone;
  std::vector<uint32_t> limits_;
  LeastLevelTree levels_;
  // The search of MakeRoom(): the copy that goes to a node, and from which.
  std::vector<uint32_t> coming_;
  std::vector<uint8_t> seen_;
  std::vector<uint32_t> queue_;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_COPY_PLACING_H_
