// The steps of LayerPlanner that move copies between nodes.
#include <algorithm>

#include "common/balance/layer_planner.h"

namespace expertmesh::balance {
namespace {

constexpr uint32_t kNone = LayerCopies::kNone;
// Nodes that a fullest node tries to exchange copies with, the least full ones.
constexpr size_t kPartners = 32;

}  // namespace

// Where a copy can go that leaves its node for rows from those reached: to one of these, which get
// rid of more rows instead, or to one with room.
uint32_t LayerPlanner::PlaceFor(uint32_t copy) const {
  const LayerCopies::Copy& moved = copies_.copy(copy);
  const auto may_have = [&](uint32_t node) {
    return node != moved.node && copies_.free_slots(node) > 0 &&
           copies_.MayGet(moved.expert, node) &&
           (problem_->zones_required <= 1 ||
            copies_.ZonesOf(moved.expert, copy, node) >= problem_->zones_required);
  };
  for (const uint32_t node : reached_) {
    if (may_have(node)) {
      return node;
    }
  }
  for (uint32_t node = 0; node < problem_->nodes(); ++node) {
    if (copies_.Room(node, goal_) >= moved.rows && may_have(node)) {
      return node;
    }
  }
  return kNone;
}

uint32_t LayerPlanner::SmallestOf(uint32_t node) const {
  uint32_t smallest = kNone;
  for (uint32_t at = copies_.first_of_node(node); at != kNone; at = copies_.copy(at).next_of_node) {
    if (smallest == kNone || copies_.copy(at).rows < copies_.copy(smallest).rows) {
      smallest = at;
    }
  }
  return smallest;
}

// A node with room and no slot gets a copy of one of the experts of `node`, or of a node that it
// can give rows to, after its own smallest copy went to a node that has a slot.
bool LayerPlanner::GiveCopyForAnother(uint32_t node, double least_gain) {
  if (!MayLoad(2)) {
    return false;
  }
  reached_.assign(levelling_.Reached().begin(), levelling_.Reached().end());
  const double excess = -copies_.Room(node, goal_);
  for (uint32_t taker = 0; taker < problem_->nodes(); ++taker) {
    const double room = copies_.Room(taker, goal_);
    if (room < least_gain * problem_->rates[taker] || problem_->accepts[taker] == 0 ||
        copies_.free_slots(taker) > 0) {
      continue;
    }
    const uint32_t leaves = SmallestOf(taker);
    const uint32_t place = leaves == kNone ? kNone : PlaceFor(leaves);
    if (place == kNone) {
      continue;
    }
    const LayerCopies::Copy moved = copies_.copy(leaves);
    for (const uint32_t giver : reached_) {
      const uint32_t from = LargestFor(giver, taker);
      if (from == kNone || copies_.copy(from).rows <= moved.rows ||
          copies_.copy(from).expert == moved.expert) {
        continue;
      }
      loads_ -= CostOf(moved.expert, taker);
      copies_.Remove(leaves);
      AddCopy(moved.expert, place, moved.rows);
      const double rows = std::min(
          {excess + (place == node ? moved.rows : 0), room + moved.rows, copies_.copy(from).rows});
      const uint32_t to = AddCopy(copies_.copy(from).expert, taker, 0);
      copies_.ShiftRows(from, to, giver == node ? rows : 0);
      return true;
    }
  }
  return false;
}

// What changes when `from` goes to `node` and `to` (kNone: a free slot) comes in its place.
void LayerPlanner::ConsiderExchange(uint32_t from, uint32_t node, uint32_t to,
                                    Exchange* best) const {
  const LayerCopies::Copy& goes = copies_.copy(from);
  const double comes = to == kNone ? 0 : copies_.copy(to).rows;
  if (comes >= goes.rows) {
    return;
  }
  const double moved = goes.rows - comes;
  const double level =
      std::max((copies_.rows_of_node(goes.node) - moved) / problem_->rates[goes.node],
               (copies_.rows_of_node(node) + moved) / problem_->rates[node]);
  if (level >= best->level || copies_.Holds(goes.expert, node)) {
    return;
  }
  const uint32_t required = problem_->zones_required;
  uint32_t cost = CostOf(goes.expert, node);
  if (required > 1 && copies_.ZonesOf(goes.expert, from, node) < required) {
    return;
  }
  if (to != kNone) {
    const uint32_t other = copies_.copy(to).expert;
    cost += CostOf(other, goes.node);
    if (!copies_.MayGet(other, goes.node) ||
        (required > 1 && copies_.ZonesOf(other, to, goes.node) < required)) {
      return;
    }
  }
  if (MayLoad(cost)) {
    *best = {from, to, node, level};
  }
}

// The exchange after which the fuller of the two nodes is least full.
bool LayerPlanner::ExchangeCopies(uint32_t node, double least_gain) {
  receivers_.clear();
  for (uint32_t other = 0; other < problem_->nodes(); ++other) {
    if (other != node && problem_->accepts[other] != 0 && problem_->slots[other] > 0) {
      receivers_.push_back({other, kNone, copies_.Room(other, goal_)});
    }
  }
  const size_t partners = std::min(kPartners, receivers_.size());
  std::partial_sort(receivers_.begin(), receivers_.begin() + static_cast<ptrdiff_t>(partners),
                    receivers_.end(), [](const Receiver& a, const Receiver& b) {
                      return a.room != b.room ? a.room > b.room : a.node < b.node;
                    });
  Exchange best;
  best.level = copies_.Level(node) - least_gain;
  for (uint32_t from = copies_.first_of_node(node); from != kNone;
       from = copies_.copy(from).next_of_node) {
    for (size_t i = 0; i < partners; ++i) {
      const uint32_t partner = receivers_[i].node;
      if (copies_.free_slots(partner) > 0) {
        ConsiderExchange(from, partner, kNone, &best);
      }
      for (uint32_t to = copies_.first_of_node(partner); to != kNone;
           to = copies_.copy(to).next_of_node) {
        ConsiderExchange(from, partner, to, &best);
      }
    }
  }
  if (best.from == kNone) {
    return false;
  }
  const auto take = [this](uint32_t copy) {
    const LayerCopies::Copy taken = copies_.copy(copy);
    loads_ -= CostOf(taken.expert, taken.node);
    copies_.Remove(copy);
    return taken;
  };
  const LayerCopies::Copy goes = take(best.from);
  if (best.to != kNone) {
    const LayerCopies::Copy comes = take(best.to);
    AddCopy(comes.expert, node, comes.rows);
  }
  AddCopy(goes.expert, best.node, goes.rows);
  return true;
}

}  // namespace expertmesh::balance
