#include "common/balance/load_levelling.h"

#include <algorithm>

namespace expertmesh::balance {
namespace {

constexpr uint32_t kNone = LayerCopies::kNone;
// What is rounding, as a share of a level.
constexpr double kRounding = 1e-12;

bool IsAbove(const LayerCopies& copies, uint32_t node, double target) {
  return copies.Level(node) > target * (1 + kRounding);
}

bool IsBelow(const LayerCopies& copies, uint32_t node, double target) {
  return copies.Level(node) < target * (1 - kRounding);
}

}  // namespace

void LoadLevelling::BeginSearch(const LayerProblem& problem) {
  if (steps_.size() < problem.nodes()) {
    steps_.resize(problem.nodes());
  }
  if (expert_searched_.size() < problem.experts()) {
    expert_searched_.resize(problem.experts());
  }
  ++search_;
  queue_.clear();
  head_ = 0;
}

void LoadLevelling::StartFrom(uint32_t node) {
  steps_[node] = {kNone, kNone, search_};
  queue_.push_back(node);
}

uint32_t LoadLevelling::Search(const LayerCopies& copies, double target) {
  for (; head_ < queue_.size(); ++head_) {
    const uint32_t node = queue_[head_];
    for (uint32_t at = copies.first_of_node(node); at != kNone;) {
      const LayerCopies::Copy& from = copies.copy(at);
      // Once for each expert: then all its nodes are reached.
      if (from.rows > 0 && copies.count_of_expert(from.expert) > 1 &&
          expert_searched_[from.expert] != search_) {
        expert_searched_[from.expert] = search_;
        for (uint32_t to = copies.first_of_expert(from.expert); to != kNone;
             to = copies.copy(to).next_of_expert) {
          const uint32_t next = copies.copy(to).node;
          if (steps_[next].search == search_) {
            continue;
          }
          steps_[next] = {at, to, search_};
          queue_.push_back(next);
          if (IsBelow(copies, next, target)) {
            return next;
          }
        }
      }
      at = from.next_of_node;
    }
  }
  return kNone;
}

void LoadLevelling::PushTo(LayerCopies* copies, uint32_t node, double target) {
  double rows = copies->Room(node, target);
  uint32_t source = node;
  for (uint32_t from = steps_[node].from; from != kNone; from = steps_[source].from) {
    rows = std::min(rows, copies->copy(from).rows);
    source = copies->copy(from).node;
  }
  rows = std::min(rows, -copies->Room(source, target));
  for (uint32_t to = node; steps_[to].from != kNone; to = copies->copy(steps_[to].from).node) {
    copies->ShiftRows(steps_[to].from, steps_[to].to, rows);
  }
}

bool LoadLevelling::Relieve(LayerCopies* copies, uint32_t node, double target) {
  while (IsAbove(*copies, node, target)) {
    BeginSearch(copies->problem());
    StartFrom(node);
    const uint32_t taker = Search(*copies, target);
    if (taker == kNone) {
      return false;
    }
    PushTo(copies, taker, target);
  }
  return true;
}

// Rows that cannot leave the nodes they are on, whatever the shares, make these nodes' mean a bound
// of the level: it is the next target, until all are at one.
double LoadLevelling::LevelOut(LayerCopies* copies, double bound) {
  double target = bound;
  while (true) {
    above_.clear();
    for (uint32_t node = 0; node < copies->problem().nodes(); ++node) {
      if (!Relieve(copies, node, target)) {
        above_.push_back(node);
      }
    }
    if (above_.empty()) {
      return copies->FullestLevel();
    }
    BeginSearch(copies->problem());
    for (const uint32_t node : above_) {
      StartFrom(node);
    }
    if (const uint32_t taker = Search(*copies, target); taker != kNone) {
      continue;  // What was given to others since has opened a way.
    }
    double rows = 0;
    double rate = 0;
    for (const uint32_t node : queue_) {
      rows += copies->rows_of_node(node);
      rate += copies->problem().rates[node];
    }
    if (rows / rate <= target * (1 + kRounding)) {
      return copies->FullestLevel();
    }
    target = rows / rate;
  }
}

}  // namespace expertmesh::balance
