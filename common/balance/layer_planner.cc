#include "common/balance/layer_planner.h"

#include <algorithm>
#include <cmath>
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
// Nodes and experts that a search may look at: some milliseconds. Small layers, where single copies
// matter, get thousands of trials, large ones some hundred. With few loads large layers are far
// from the bound, and a search finds little.
constexpr uint64_t kSearchEffort = 60'000;
constexpr uint64_t kLimitedSearchEffort = kSearchEffort / 8;
// Levels on the way to the bound that are offered where loads are limited.
constexpr size_t kSteps = 8;
// They are closer to each other near the bound, where each takes more copies.
constexpr double kStepsBend = 1.5;

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

// False: there are no slots for them.
bool LayerPlanner::PlaceRequired(bool may_split) {
  most_loads_ = kNoLimit;
  copies_.CopyFrom(held_);
  if (!placing_.Place(&copies_, by_load_.experts(), Bound(), may_split)) {
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
  return true;
}

bool LayerPlanner::Plan(double tolerance) {
  if (!PlaceRequired(true)) {
    return false;
  }
  Finish(tolerance);
  return true;
}

void LayerPlanner::Finish(double tolerance) {
  goal_ = bound_;
  ImproveInRounds(tolerance);
  const uint64_t effort = most_loads_ == kNoLimit ? kSearchEffort : kLimitedSearchEffort;
  const double good_enough = bound_ * (1 + std::max(tolerance, kWorthASearch));
  if (level_ > good_enough &&
      search_.Improve(&copies_, bound_, good_enough, most_loads_, effort, &loads_)) {
    ImproveInRounds(tolerance);
  }
  copies_.SumAgain();
  level_ = copies_.FullestLevel();
}

bool LayerPlanner::BeginSteps() {
  if (!PlaceRequired(false)) {
    return false;
  }
  level_ = levelling_.LevelOut(&copies_, bound_);
  first_level_ = level_;
  first_loads_ = loads_;
  first_.CopyFrom(copies_);
  return true;
}

// False: that is as far as it gets.
bool LayerPlanner::StepTo(size_t step, double tolerance) {
  if (level_ <= bound_ * (1 + tolerance)) {
    return false;
  }
  copies_.CopyFrom(first_);
  loads_ = first_loads_;
  const double left = std::pow(1 - (static_cast<double>(step) / kSteps), kStepsBend);
  goal_ = bound_ * std::pow(first_level_ / bound_, left);
  Improve(tolerance);
  level_ = levelling_.LevelOut(&copies_, goal_);
  return level_ <= goal_ * (1 + tolerance);
}

bool LayerPlanner::PlanSteps(double tolerance, std::vector<Step>* steps) {
  steps->clear();
  if (!BeginSteps()) {
    return false;
  }
  steps->push_back({loads_, level_});
  while (steps->size() <= kSteps && StepTo(steps->size(), tolerance)) {
    steps->push_back({loads_, level_});
  }
  return true;
}

bool LayerPlanner::PlanToStep(double tolerance, size_t step, uint32_t most_loads) {
  if (!BeginSteps()) {
    return false;
  }
  if (step > 0) {
    StepTo(step, tolerance);
  }
  most_loads_ = std::max(most_loads, loads_);
  Finish(tolerance);
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
    if (copies_.Level(fullest) <= goal_ * (1 + tolerance)) {
      return;
    }
    if (levelling_.Relieve(&copies_, fullest, goal_)) {
      continue;
    }
    const double least_gain = std::max(tolerance / 4, kTooLittle) * goal_;
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
      if (copy.rows <= 0 || copy.rows * (1 - kRounding) <= copies_.RoomOfOthers(at, goal_)) {
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
    const double room = copies_.Room(node, goal_);
    excess_ -= std::min(room, 0.0);
  }
  for (uint32_t node = 0; node < problem_->nodes(); ++node) {
    const double room = copies_.Room(node, goal_);
    if (room > kTooLittle * goal_ * problem_->rates[node]) {
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
  const double excess = -copies_.Room(node, goal_);
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
    RemoveCopy(receiver.leaves, goal_);
  }
  const uint32_t to = AddCopy(copies_.copy(from).expert, receiver.node, 0);
  copies_.ShiftRows(from, to, std::min(rows, copies_.copy(from).rows));
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
