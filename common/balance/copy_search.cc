#include "common/balance/copy_search.h"

namespace expertmesh::balance {
namespace {

constexpr uint32_t kNone = LayerCopies::kNone;
// What is worth a step, as a share of the level.
constexpr double kLeastGain = 1e-3;

}  // namespace

bool CopySearch::Improve(LayerCopies* copies, double bound, double target, uint32_t most_loads,
                         uint64_t most_effort, uint32_t* loads) {
  bound_ = bound;
  level_ = copies->FullestLevel();
  most_loads_ = most_loads;
  loads_ = *loads;
  most_effort_ = most_effort;
  effort_ = 0;
  bool improved = false;
  while (level_ > target && StepOnce(copies)) {
    improved = true;
  }
  *loads = loads_;
  return improved;
}

bool CopySearch::StepOnce(LayerCopies* copies) {
  fullest_.clear();
  for (uint32_t node = 0; node < copies->problem().nodes(); ++node) {
    if (copies->Level(node) >= level_ * (1 - kLeastGain)) {
      fullest_.push_back(node);
    }
  }
  for (const uint32_t full : fullest_) {
    for (uint32_t from = copies->first_of_node(full); from != kNone;
         from = copies->copy(from).next_of_node) {
      for (uint32_t node = 0; node < copies->problem().nodes(); ++node) {
        if (effort_ > most_effort_) {
          return false;
        }
        if (copies->problem().slots[node] > 0 && copies->MayGet(copies->copy(from).expert, node) &&
            TryOf(copies, from, node)) {
          return true;
        }
      }
    }
  }
  return false;
}

bool CopySearch::TryOf(LayerCopies* copies, uint32_t from, uint32_t node) {
  const bool may_add =
      copies->count_of_expert(copies->copy(from).expert) < copies->problem().max_copies;
  if (copies->free_slots(node) > 0) {
    return (may_add && Try(copies, from, node, kNone, false, true)) ||
           Try(copies, from, node, kNone, false, false);
  }
  const uint32_t full = copies->copy(from).node;
  for (uint32_t to = copies->first_of_node(node); to != kNone; to = copies->copy(to).next_of_node) {
    if (copies->MayGo(to) && ((may_add && Try(copies, from, node, to, false, true)) ||
                              Try(copies, from, node, to, false, false))) {
      return true;
    }
    if (copies->MayGet(copies->copy(to).expert, full) && Try(copies, from, node, to, true, false)) {
      return true;
    }
  }
  return false;
}

bool CopySearch::KeepsSpread(const LayerCopies& copies, uint32_t expert) const {
  const uint32_t required = copies.problem().zones_required;
  return required <= 1 || copies.ZonesOf(expert, kNone, kNone) >= required;
}

bool CopySearch::Try(LayerCopies* copies, uint32_t from, uint32_t node, uint32_t to, bool exchange,
                     bool keep) {
  effort_ += copies->problem().nodes() + copies->problem().experts();
  const LayerCopies::Copy goes = copies->copy(from);
  uint32_t loads = loads_ + CostOf({goes.expert, node}) - (keep ? 0 : CostOf(goes));
  trial_.CopyFrom(*copies);
  if (to != kNone) {
    const LayerCopies::Copy comes = copies->copy(to);
    loads -= CostOf(comes);
    if (exchange) {
      loads += CostOf({comes.expert, goes.node});
      trial_.Remove(to);
      trial_.Add(comes.expert, goes.node, comes.rows);
    } else {
      trial_.Dissolve(to, bound_);
    }
    if (!KeepsSpread(trial_, comes.expert)) {
      return false;
    }
  }
  if (!keep) {
    trial_.Remove(from);
  }
  trial_.Add(goes.expert, node, keep ? 0 : goes.rows);
  if (loads > most_loads_ || !KeepsSpread(trial_, goes.expert)) {
    return false;
  }
  const double level = levelling_.LevelOut(&trial_, bound_);
  if (level >= level_ * (1 - kLeastGain)) {
    return false;
  }
  copies->CopyFrom(trial_);
  level_ = level;
  loads_ = loads;
  return true;
}

}  // namespace expertmesh::balance
