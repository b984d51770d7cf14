#include "common/balance/layer_copies.h"

#include <algorithm>

#include "common/base/check.h"

namespace expertmesh::balance {

void LayerCopies::Reset(const LayerProblem& problem) {
  problem_ = &problem;
  copies_.clear();
  unused_.clear();
  experts_.assign(problem.experts(), {});
  nodes_.assign(problem.nodes(), {});
  rows_.assign(problem.nodes(), 0);
}

void LayerCopies::CopyFrom(const LayerCopies& other) {
  problem_ = other.problem_;
  copies_ = other.copies_;
  unused_ = other.unused_;
  experts_ = other.experts_;
  nodes_ = other.nodes_;
  rows_ = other.rows_;
}

uint32_t LayerCopies::Add(uint32_t expert, uint32_t node, double rows) {
  uint32_t index = static_cast<uint32_t>(copies_.size());
  if (unused_.empty()) {
    copies_.emplace_back();
  } else {
    index = unused_.back();
    unused_.pop_back();
  }
  List& of_expert = experts_[expert];
  List& of_node = nodes_[node];
  copies_[index] = {expert, node, rows, of_expert.first, of_node.first};
  of_expert.first = index;
  of_node.first = index;
  ++of_expert.count;
  ++of_node.count;
  rows_[node] += rows;
  return index;
}

void LayerCopies::Remove(uint32_t copy) {
  const Copy removed = copies_[copy];
  const auto unlink = [&](List* list, uint32_t Copy::*next) {
    uint32_t* link = &list->first;
    while (*link != copy) {
      EXPERTMESH_CHECK(*link != kNone);
      link = &(copies_[*link].*next);
    }
    *link = removed.*next;
    --list->count;
  };
  unlink(&experts_[removed.expert], &Copy::next_of_expert);
  unlink(&nodes_[removed.node], &Copy::next_of_node);
  rows_[removed.node] -= removed.rows;
  unused_.push_back(copy);
}

void LayerCopies::Dissolve(uint32_t copy, double target) {
  for (uint32_t at = experts_[copies_[copy].expert].first; at != kNone && copies_[copy].rows > 0;
       at = copies_[at].next_of_expert) {
    if (const double room = Room(copies_[at].node, target); at != copy && room > 0) {
      ShiftRows(copy, at, std::min(room, copies_[copy].rows));
    }
  }
  if (const uint32_t other = LeastFullOther(copy); other != kNone) {
    ShiftRows(copy, other, copies_[copy].rows);
  }
  Remove(copy);
}

double LayerCopies::RoomOfOthers(uint32_t copy, double target) const {
  double room = 0;
  for (uint32_t at = experts_[copies_[copy].expert].first; at != kNone;
       at = copies_[at].next_of_expert) {
    room += at == copy ? 0 : std::max(0.0, Room(copies_[at].node, target));
  }
  return room;
}

void LayerCopies::ShiftRows(uint32_t from, uint32_t to, double rows) {
  copies_[from].rows -= rows;
  copies_[to].rows += rows;
  rows_[copies_[from].node] -= rows;
  rows_[copies_[to].node] += rows;
}

uint32_t LayerCopies::Find(uint32_t expert, uint32_t node) const {
  uint32_t at = experts_[expert].first;
  while (at != kNone && copies_[at].node != node) {
    at = copies_[at].next_of_expert;
  }
  return at;
}

uint32_t LayerCopies::LeastFullOther(uint32_t copy) const {
  uint32_t least = kNone;
  for (uint32_t at = experts_[copies_[copy].expert].first; at != kNone;
       at = copies_[at].next_of_expert) {
    if (at != copy && (least == kNone || Level(copies_[at].node) < Level(copies_[least].node))) {
      least = at;
    }
  }
  return least;
}

uint32_t LayerCopies::FullestNode() const {
  uint32_t fullest = 0;
  double level = Level(0);
  for (uint32_t node = 1; node < rows_.size(); ++node) {
    if (Level(node) > level) {
      fullest = node;
      level = Level(node);
    }
  }
  return fullest;
}

uint32_t LayerCopies::ZonesOf(uint32_t expert, uint32_t without, uint32_t also) const {
  uint32_t zones = 0;
  uint32_t at = experts_[expert].first;
  // A zone counts with the last of the copies there.
  for (; at != kNone; at = copies_[at].next_of_expert) {
    const uint32_t zone = problem_->zones[copies_[at].node];
    bool last = at != without && (also == kNone || problem_->zones[also] != zone);
    for (uint32_t later = copies_[at].next_of_expert; last && later != kNone;
         later = copies_[later].next_of_expert) {
      last = later == without || problem_->zones[copies_[later].node] != zone;
    }
    zones += last ? 1 : 0;
  }
  return zones + (also == kNone ? 0 : 1);
}

bool LayerCopies::MayGo(uint32_t copy) const {
  const uint32_t expert = copies_[copy].expert;
  return count_of_expert(expert) > problem_->min_copies &&
         (problem_->zones_required <= 1 ||
          ZonesOf(expert, copy, kNone) >= problem_->zones_required);
}

void LayerCopies::SumAgain() {
  std::fill(rows_.begin(), rows_.end(), 0.0);
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    for (uint32_t at = nodes_[node].first; at != kNone; at = copies_[at].next_of_node) {
      rows_[node] += copies_[at].rows;
    }
  }
}

}  // namespace expertmesh::balance
