#include "common/balance/copy_placing.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace expertmesh::balance {
namespace {

constexpr uint32_t kNone = LayerCopies::kNone;
// A copy of an expert that needs several takes no more than this share of a node at first: small
// experts, which take slots as large ones do, are to fit beside it.
constexpr double kLargestPiece = 0.9;
// A level that is a bound is met but for so much: pieces that are to fit in all slots are not one
// more for it.
constexpr double kRounding = 1e-6;

}  // namespace

bool CopyPlacing::Place(LayerCopies* copies, absl::Span<const uint32_t> by_load, double level,
                        bool may_split) {
  copies_ = copies;
  level_ = level;
  const LayerProblem& problem = copies_->problem();
  for (uint32_t expert = 0; expert < problem.experts(); ++expert) {
    DropAbove(problem.max_copies, Goes::kFewestRows, expert);
  }
  DropWhatHasNoSlot();
  if (!CountMissing()) {
    return true;
  }
  LimitNodes();
  return PlaceMissing(by_load, may_split);
}

bool CopyPlacing::PlaceTightly(LayerCopies* copies, absl::Span<const uint32_t> by_load,
                               double level) {
  copies_ = copies;
  level_ = level;
  const LayerProblem& problem = copies_->problem();
  for (uint32_t expert = 0; expert < problem.experts(); ++expert) {
    DropAbove(problem.min_copies, Goes::kTakesASlot, expert);
  }
  DropWhatHasNoSlot();
  CountMissing();
  LimitNodes();
  UseAllSlots();
  return PlaceMissing(by_load, false);
}

bool CopyPlacing::PlaceMissing(absl::Span<const uint32_t> by_load, bool may_split) {
  missing_expert_ = kNone;
  const double largest = may_split ? LargestPiece(by_load) : 0;
  for (const uint32_t expert : by_load) {
    if (const uint32_t required = Missing(expert); required > 0) {
      uint32_t pieces = required;
      if (may_split) {
        const uint32_t wanted = Pieces(expert, largest);
        const uint32_t more = std::min(wanted - std::min(wanted, required), spare_);
        spare_ -= more;
        pieces += more;
      }
      if (!PlaceExpert(expert, required, pieces)) {
        missing_expert_ = expert;
        return false;
      }
    }
  }
  return true;
}

uint32_t CopyPlacing::MissingZones(uint32_t expert) const {
  const uint32_t required = copies_->problem().zones_required;
  return required <= 1 ? 0 : required - std::min(required, copies_->ZonesOf(expert, kNone, kNone));
}

uint32_t CopyPlacing::Missing(uint32_t expert) const {
  const LayerProblem& problem = copies_->problem();
  const uint32_t count = copies_->count_of_expert(expert);
  return std::max(problem.min_copies - std::min(problem.min_copies, count), MissingZones(expert));
}

// Zones that the expert must have, and has not, take some of `most`: then several of its copies are
// in one zone, and all but one of these can go.
void CopyPlacing::DropAbove(uint32_t most, Goes first, uint32_t expert) {
  const LayerProblem& problem = copies_->problem();
  while (copies_->count_of_expert(expert) + MissingZones(expert) > most) {
    const uint32_t missing_zones = MissingZones(expert);
    uint32_t least = kNone;
    std::tuple<bool, bool, double, uint32_t> least_key;
    for (uint32_t at = copies_->first_of_expert(expert); at != kNone;
         at = copies_->copy(at).next_of_expert) {
      const LayerCopies::Copy& copy = copies_->copy(at);
      const bool loses_zone =
          problem.zones_required > 1 &&
          copies_->ZonesOf(expert, at, kNone) + missing_zones < problem.zones_required;
      const bool takes_none = first == Goes::kTakesASlot && problem.accepts[copy.node] == 0;
      const std::tuple<bool, bool, double, uint32_t> key(loses_zone, takes_none, copy.rows,
                                                         copy.node);
      if (least == kNone || key < least_key) {
        least = at;
        least_key = key;
      }
    }
    copies_->Dissolve(least, level_);
  }
}

// Copies that experts can do without go first, then those of the smallest experts.
void CopyPlacing::DropWhatHasNoSlot() {
  const LayerProblem& problem = copies_->problem();
  for (uint32_t node = 0; node < problem.nodes(); ++node) {
    while (copies_->count_of_node(node) > problem.slots[node]) {
      uint32_t least = kNone;
      std::tuple<bool, double, uint32_t> least_key;
      for (uint32_t at = copies_->first_of_node(node); at != kNone;
           at = copies_->copy(at).next_of_node) {
        const LayerCopies::Copy& copy = copies_->copy(at);
        const bool may_go = copies_->MayGo(at);
        const std::tuple<bool, double, uint32_t> key(
            !may_go, may_go ? copy.rows : problem.loads[copy.expert], copy.expert);
        if (least == kNone || key < least_key) {
          least = at;
          least_key = key;
        }
      }
      copies_->Dissolve(least, level_);
    }
  }
}

bool CopyPlacing::CountMissing() {
  missing_ = 0;
  for (uint32_t expert = 0; expert < copies_->problem().experts(); ++expert) {
    missing_ += Missing(expert);
  }
  return missing_ > 0;
}

// Keeps a slot of every node back; where there are fewer left over, of as many nodes, evenly.
void CopyPlacing::LimitNodes() {
  const LayerProblem& problem = copies_->problem();
  uint32_t free = 0;
  uint32_t open = 0;
  double rates = 0;
  for (uint32_t node = 0; node < problem.nodes(); ++node) {
    const uint32_t here = problem.accepts[node] != 0 ? copies_->free_slots(node) : 0;
    free += here;
    open += here > 0 ? 1 : 0;
    rates += problem.rates[node];
  }
  mean_rate_ = rates / problem.nodes();
  rates_alike_ = std::all_of(problem.rates.begin(), problem.rates.end(),
                             [&](double rate) { return rate == problem.rates[0]; });
  spare_ = free - std::min(free, missing_);
  all_slots_ = false;
  limits_.resize(problem.nodes());
  levels_.Reset(problem.nodes());
  uint64_t seen = 0;
  for (uint32_t node = 0; node < problem.nodes(); ++node) {
    if (problem.accepts[node] == 0 || copies_->free_slots(node) == 0) {
      limits_[node] = 0;
      continue;
    }
    const uint64_t kept_before = seen * std::min(spare_, open) / open;
    ++seen;
    const uint64_t kept = seen * std::min(spare_, open) / open;
    limits_[node] = problem.slots[node] - static_cast<uint32_t>(kept - kept_before);
    SetKey(node);
  }
}

void CopyPlacing::UseAllSlots() {
  all_slots_ = true;
  const LayerProblem& problem = copies_->problem();
  for (uint32_t node = 0; node < problem.nodes(); ++node) {
    limits_[node] = problem.accepts[node] != 0 ? problem.slots[node] : 0;
    SetKey(node);
  }
}

void CopyPlacing::SetKey(uint32_t node) {
  levels_.Set(node, copies_->count_of_node(node) < limits_[node] ? copies_->Level(node)
                                                                 : LeastLevelTree::kOut);
}

uint32_t CopyPlacing::Pieces(uint32_t expert, double largest) const {
  const uint32_t most = std::min(copies_->problem().max_copies, copies_->problem().nodes());
  const double load = copies_->problem().loads[expert];
  if (copies_->count_of_expert(expert) > 0 || load <= level_ * mean_rate_) {
    return 0;
  }
  return static_cast<uint32_t>(std::min<double>(std::ceil(load / largest * (1 - kRounding)), most));
}

// Splits as far as spare slots go: below what a node is meant to come to, or else to that.
double CopyPlacing::LargestPiece(absl::Span<const uint32_t> by_load) const {
  const double whole = level_ * mean_rate_;
  uint64_t more = 0;
  for (const uint32_t expert : by_load) {
    if (copies_->problem().loads[expert] <= whole) {
      break;
    }
    const uint32_t pieces = Pieces(expert, kLargestPiece * whole);
    more += pieces - std::min(pieces, Missing(expert));
  }
  return more <= spare_ ? kLargestPiece * whole : whole;
}

bool CopyPlacing::PlaceExpert(uint32_t expert, uint32_t required, uint32_t pieces) {
  const bool is_new = copies_->count_of_expert(expert) == 0;
  double rows = is_new ? copies_->problem().loads[expert] / pieces : 0;
  for (uint32_t piece = 0; piece < pieces; ++piece) {
    uint32_t node = Choose(expert, rows);
    if (node == kNone && !all_slots_) {
      UseAllSlots();
      node = Choose(expert, rows);
    }
    if (node == kNone && piece < required) {
      node = MakeRoom(expert);
    }
    if (node == kNone && piece < required) {
      return false;
    }
    if (node == kNone) {  // Those that it has take what is left.
      const uint32_t first = copies_->first_of_expert(expert);
      copies_->AddRows(first, rows * (pieces - piece));
      SetKey(copies_->copy(first).node);
      break;
    }
    copies_->Add(expert, node, rows);
    if (piece > 0) {  // It levels its nodes with each other: that slot was kept for it.
      limits_[node] = std::min(limits_[node] + 1, copies_->problem().slots[node]);
    }
    SetKey(node);
  }
  return true;
}

bool CopyPlacing::FitsSpread(uint32_t expert, uint32_t node) const {
  const uint32_t required = copies_->problem().zones_required;
  if (required <= 1) {
    return true;
  }
  const uint32_t zones = copies_->ZonesOf(expert, kNone, kNone);
  return zones >= required || copies_->ZonesOf(expert, kNone, node) > zones;
}

// The node that is least full with the copy on it.
uint32_t CopyPlacing::Choose(uint32_t expert, double rows) const {
  const LayerProblem& problem = copies_->problem();
  if (rates_alike_ && copies_->count_of_expert(expert) == 0) {
    const uint32_t least = levels_.Least();
    return levels_.key(least) < LeastLevelTree::kOut ? least : kNone;
  }
  uint32_t best = kNone;
  double best_level = LeastLevelTree::kOut;
  for (uint32_t node = 0; node < problem.nodes(); ++node) {
    const double level = levels_.key(node) + (rows / problem.rates[node]);
    if (level < best_level && !copies_->Holds(expert, node) && FitsSpread(expert, node)) {
      best = node;
      best_level = level;
    }
  }
  return best;
}

// Breadth first over chains of copies, each of which takes the place of the next.
uint32_t CopyPlacing::MakeRoom(uint32_t expert) {
  const uint32_t nodes = copies_->problem().nodes();
  coming_.assign(nodes, kNone);
  seen_.assign(nodes, 0);
  queue_.clear();
  for (uint32_t node = 0; node < nodes; ++node) {
    if (copies_->problem().slots[node] > 0 && copies_->MayGet(expert, node) &&
        FitsSpread(expert, node)) {
      seen_[node] = 1;
      queue_.push_back(node);
    }
  }
  for (size_t head = 0; head < queue_.size(); ++head) {
    const uint32_t node = queue_[head];
    if (FreeHere(node, expert)) {
      uint32_t first = node;
      while (coming_[first] != kNone) {
        const uint32_t before = copies_->copy(coming_[first]).node;
        MoveAlong(first);
        first = before;
      }
      SetKey(first);
      return first;
    }
    SpreadSearch(node, expert);
  }
  return kNone;
}

// A slot is free, or can be, since a copy there is one that its expert can do without.
bool CopyPlacing::FreeHere(uint32_t node, uint32_t expert) {
  if (copies_->free_slots(node) > 0) {
    return true;
  }
  for (uint32_t at = copies_->first_of_node(node); at != kNone;
       at = copies_->copy(at).next_of_node) {
    if (copies_->copy(at).expert != expert && copies_->MayGo(at)) {
      copies_->Dissolve(at, level_);
      return true;
    }
  }
  return false;
}

// Rows go with the copy.
void CopyPlacing::MoveAlong(uint32_t node) {
  const LayerCopies::Copy moved = copies_->copy(coming_[node]);
  copies_->Remove(coming_[node]);
  copies_->Add(moved.expert, node, moved.rows);
  SetKey(moved.node);
  SetKey(node);
}

void CopyPlacing::SpreadSearch(uint32_t node, uint32_t expert) {
  const uint32_t required = copies_->problem().zones_required;
  for (uint32_t at = copies_->first_of_node(node); at != kNone;
       at = copies_->copy(at).next_of_node) {
    const uint32_t moved = copies_->copy(at).expert;
    if (moved == expert) {
      continue;
    }
    for (uint32_t next = 0; next < copies_->problem().nodes(); ++next) {
      if (seen_[next] == 0 && copies_->problem().slots[next] > 0 && copies_->MayGet(moved, next) &&
          (required <= 1 || copies_->ZonesOf(moved, at, next) >=
                                std::min(required, copies_->ZonesOf(moved, kNone, kNone)))) {
        seen_[next] = 1;
        coming_[next] = at;
        queue_.push_back(next);
      }
    }
  }
}

}  // namespace expertmesh::balance
