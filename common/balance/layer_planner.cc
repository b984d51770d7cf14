#include "common/balance/layer_planner.h"

#include <algorithm>
#include <limits>

namespace expertmesh::balance {
namespace {

constexpr uint32_t kNone = LayerCopies::kNone;
// What is not worth a copy, neither as a gain nor as room, as a share of the bound.
constexpr double kTooLittle = 1e-5;
// What is rounding, as a share of a copy's rows.
constexpr double kRounding = 1e-9;
// How far above the bound a thorough search begins.
constexpr double kWorthASearch = 0.003;
// Nodes that a fullest node tries to exchange copies with, the least full ones.
constexpr size_t kPartners = 32;

}  // namespace

void LayerPlanner::Begin(const LayerProblem& problem) {
  problem_ = &problem;
  held_.Reset(problem);
  bound_ = -1;
  by_load_.Sort(problem.loads);
}

double LayerPlanner::Bound() {
  if (bound_ < 0) {
    bound_ = bounds_.Of(*problem_, by_load_.experts(), held_);
  }
  return bound_;
}

bool LayerPlanner::Plan(double tolerance, uint32_t most_loads) {
  most_loads_ = most_loads;
  copies_.CopyFrom(held_);
  if (!placing_.Place(&copies_, by_load_.experts(), Bound(), most_loads == kNoLimit)) {
    copies_.CopyFrom(held_);
    if (!placing_.PlaceTightly(&copies_, by_load_.experts(), Bound())) {
      return false;
    }
  }
  loads_ = 0;
  level_ = std::numeric_limits<double>::infinity();
  for (uint32_t node = 0; node < problem_->nodes(); ++node) {
    for (uint32_t at = copies_.first_of_node(node); at != kNone;
         at = copies_.copy(at).next_of_node) {
      loads_ += CostOf(copies_.copy(at).expert, node);
    }
  }
  ImproveInRounds(tolerance);
  const double good_enough = bound_ * (1 + std::max(tolerance, kWorthASearch));
  if (level_ > good_enough &&
      search_.Improve(&copies_, bound_, good_enough, most_loads_, &loads_)) {
    ImproveInRounds(tolerance);
  }
  copies_.SumAgain();
  level_ = copies_.FullestLevel();
  return true;
}

// What is dropped leaves slots for another round.
void LayerPlanner::ImproveInRounds(double tolerance) {
  double before = std::numeric_limits<double>::infinity();
  do {
    before = std::min(before, level_);
    Improve(tolerance);
    level_ = levelling_.LevelOut(&copies_, bound_);
    DropNeedless();
  } while (level_ > bound_ * (1 + tolerance) && level_ < before * (1 - kTooLittle));
}

uint32_t LayerPlanner::AddCopy(uint32_t expert, uint32_t node, double rows) {
  loads_ += CostOf(expert, node);
  return copies_.Add(expert, node, rows);
}

void LayerPlanner::RemoveCopy(uint32_t copy, double target) {
  loads_ -= CostOf(copies_.copy(copy).expert, copies_.copy(copy).node);
  copies_.Dissolve(copy, target);
}

void LayerPlanner::Improve(double tolerance) {
  const uint32_t most_steps = 4 * (problem_->nodes() + problem_->experts());
  for (uint32_t step = 0; step < most_steps; ++step) {
    const uint32_t fullest = copies_.FullestNode();
    if (copies_.Level(fullest) <= bound_ * (1 + tolerance)) {
      return;
    }
    if (levelling_.Relieve(&copies_, fullest, bound_)) {
      continue;
    }
    const double least_gain = std::max(tolerance / 4, kTooLittle) * bound_;
    if (!GiveCopy(fullest) && !GiveCopyForAnother(fullest, least_gain) &&
        !ExchangeCopies(fullest, least_gain)) {
      return;
    }
  }
}

// A free slot, or one whose copy can go: its expert has others, with room for its rows.
bool LayerPlanner::FindSlot(uint32_t node, uint32_t* leaves) const {
  *leaves = kNone;
  if (problem_->accepts[node] == 0 || problem_->slots[node] == 0) {
    return false;
  }
  if (copies_.free_slots(node) > 0) {
    return true;
  }
  for (uint32_t at = copies_.first_of_node(node); at != kNone; at = copies_.copy(at).next_of_node) {
    const LayerCopies::Copy& copy = copies_.copy(at);
    if (copies_.count_of_expert(copy.expert) > 1 &&
        (*leaves == kNone || copy.rows < copies_.copy(*leaves).rows) && copies_.MayGo(at)) {
      if (copy.rows <= 0 || copy.rows * (1 - kRounding) <= copies_.RoomOfOthers(at, bound_)) {
        *leaves = at;
      }
    }
  }
  return *leaves != kNone;
}

void LayerPlanner::CollectReceivers() {
  receivers_.clear();
  excess_ = 0;
  room_ = 0;
  for (uint32_t node = 0; node < problem_->nodes(); ++node) {
    const double room = copies_.Room(node, bound_);
    excess_ -= std::min(room, 0.0);
  }
  for (uint32_t node = 0; node < problem_->nodes(); ++node) {
    const double room = copies_.Room(node, bound_);
    if (room > kTooLittle * bound_ * problem_->rates[node]) {
      Receiver receiver = {node, kNone, room};
      if (FindSlot(node, &receiver.leaves)) {
        receivers_.push_back(receiver);
        room_ += room;
      }
    }
  }
}

// The receiver with the least room that is enough, or else the one with the most.
uint32_t LayerPlanner::Preferred(double excess) const {
  uint32_t closest = kNone;
  uint32_t largest = 0;
  for (uint32_t i = 0; i < receivers_.size(); ++i) {
    const double room = receivers_[i].room;
    if (room >= excess && (closest == kNone || room < receivers_[closest].room)) {
      closest = i;
    }
    if (room > receivers_[largest].room) {
      largest = i;
    }
  }
  return closest == kNone ? largest : closest;
}

// One of the experts of `node`, or of a node that it can give rows to, gets another copy.
bool LayerPlanner::GiveCopy(uint32_t node) {
  if (!MayLoad(1)) {
    return false;
  }
  CollectReceivers();
  if (receivers_.empty()) {
    return false;
  }
  const double excess = -copies_.Room(node, bound_);
  std::swap(receivers_[Preferred(excess)], receivers_.front());
  const Receiver& preferred = receivers_.front();
  double rows = std::min(excess, preferred.room);
  // Where the room that it would leave unused is needed, it is filled, if the giver, which then has
  // room itself, can be a receiver.
  uint32_t unused = kNone;
  if (room_ - preferred.room < excess_ - excess && FindSlot(node, &unused)) {
    rows = preferred.room;
  }
  if (GiveTo(node, preferred, rows)) {
    return true;
  }
  std::sort(receivers_.begin() + 1, receivers_.end(), [](const Receiver& a, const Receiver& b) {
    return a.room != b.room ? a.room > b.room : a.node < b.node;
  });
  reached_.assign(levelling_.Reached().begin(), levelling_.Reached().end());
  for (const uint32_t giver : reached_) {
    for (const Receiver& receiver : receivers_) {
      if (GiveTo(giver, receiver, giver == node ? std::min(excess, receiver.room) : 0)) {
        return true;
      }
    }
  }
  return false;
}

// The largest of the giver's experts that `taker` may have a copy of.
uint32_t LayerPlanner::LargestFor(uint32_t giver, uint32_t taker) const {
  uint32_t largest = kNone;
  for (uint32_t at = copies_.first_of_node(giver); at != kNone;
       at = copies_.copy(at).next_of_node) {
    const LayerCopies::Copy& copy = copies_.copy(at);
    if (copy.rows > 0 && copies_.count_of_expert(copy.expert) < problem_->max_copies &&
        (largest == kNone || copy.rows > copies_.copy(largest).rows) &&
        !copies_.Holds(copy.expert, taker)) {
      largest = at;
    }
  }
  return largest;
}

// The largest of the giver's experts that may have another copy gives up to `rows`.
bool LayerPlanner::GiveTo(uint32_t giver, const Receiver& receiver, double rows) {
  const uint32_t from = LargestFor(giver, receiver.node);
  if (from == kNone) {
    return false;
  }
  if (receiver.leaves != kNone) {
    RemoveCopy(receiver.leaves, bound_);
  }
  const uint32_t to = AddCopy(copies_.copy(from).expert, receiver.node, 0);
  copies_.ShiftRows(from, to, std::min(rows, copies_.copy(from).rows));
  return true;
}

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
    if (copies_.Room(node, bound_) >= moved.rows && may_have(node)) {
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
  const double excess = -copies_.Room(node, bound_);
  for (uint32_t taker = 0; taker < problem_->nodes(); ++taker) {
    const double room = copies_.Room(taker, bound_);
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
      receivers_.push_back({other, kNone, copies_.Room(other, bound_)});
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

// Copies to be loaded that are not needed for the level that was reached.
void LayerPlanner::DropNeedless() {
  for (uint32_t node = 0; node < problem_->nodes(); ++node) {
    for (uint32_t at = copies_.first_of_node(node); at != kNone;) {
      const uint32_t next = copies_.copy(at).next_of_node;
      const LayerCopies::Copy& copy = copies_.copy(at);
      if (copies_.count_of_expert(copy.expert) > 1 && CostOf(copy.expert, node) > 0 &&
          copies_.MayGo(at)) {
        if (copy.rows <= 0 || copy.rows <= copies_.RoomOfOthers(at, level_)) {
          RemoveCopy(at, level_);
        }
      }
      at = next;
    }
  }
}

}  // namespace expertmesh::balance
