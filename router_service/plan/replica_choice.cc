#include "router_service/plan/replica_choice.h"

#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

#include "common/base/check.h"

namespace expertmesh::plan {
namespace {

constexpr size_t kWordBits = 64;

// Assignments of an expert in a batch from which on it is divided. A node reads the expert's
// weights for however few rows it has, and up to about 30 that is what its time goes to: halves of
// fewer would take as long as the whole.
constexpr uint32_t kDividedFrom = 64;
// Fewest assignments that a replica gets of one that is divided; it is owed what is less.
constexpr float kLeastPart = 16;
// How many rows less than another a replica may be owed, and be chosen for the transfers it saves.
constexpr float kSlack = 32;

size_t Words(size_t bits) { return (bits + kWordBits - 1) / kWordBits; }

template <typename T>
void GrowTo(std::vector<T>* buffer, size_t size, T value = {}) {
  if (buffer->size() < size) {
    buffer->resize(size, value);
  }
}

}  // namespace

void ReplicaChoice::Choose(const std::vector<mesh::ExpertReplicas>& replicas,
                           const Assignments& assignments, WorkOfNode work) {
  CountHits(replicas.size(), assignments.expert_ids);
  CollectDemands(replicas, work);
  if (had_a_choice_) {
    CollectRows(assignments);
  }
  for (Demand& demand : demands_) {
    if (demand.candidates->size() == 1) {
      ServeBy(demand, demand.candidates->front());
    }
  }
  if (has_shares_) {
    ServeByShares(replicas, assignments.layer);
  }
  if (had_a_choice_) {
    JoinChosen();
    ListUnserved();
    CoverTheRest();
  }
  SortUsed();
}

void ReplicaChoice::CountHits(size_t experts, absl::Span<const uint32_t> expert_ids) {
  GrowTo(&hits_, experts);
  GrowTo(&hit_bits_, Words(experts));
  GrowTo(&serves_, experts);
  for (const uint32_t expert : expert_ids) {
    EXPERTMESH_CHECK(expert < experts);
    ++hits_[expert];
    hit_bits_[expert / kWordBits] |= uint64_t{1} << (expert % kWordBits);
  }
}

// In order of experts, whatever the order in which tokens hit them.
void ReplicaChoice::CollectDemands(const std::vector<mesh::ExpertReplicas>& replicas,
                                   WorkOfNode work) {
  had_a_choice_ = false;
  has_shares_ = false;
  parts_.clear();
  demands_.clear();
  candidates_.clear();
  serving_.clear();
  for (size_t word = 0; word < Words(replicas.size()); ++word) {
    for (uint64_t bits = std::exchange(hit_bits_[word], 0); bits != 0; bits &= bits - 1) {
      const auto expert =
          static_cast<uint32_t>(word * kWordBits + static_cast<size_t>(std::countr_zero(bits)));
      const uint32_t assignments = std::exchange(hits_[expert], 0);
      const auto& slices = replicas[expert].slices;
      serves_[expert] = {static_cast<uint32_t>(serving_.size()),
                         static_cast<uint32_t>(slices.size())};
      for (const std::vector<mesh::NodeIndex>& slice : slices) {
        EXPERTMESH_CHECK(!slice.empty());
        demands_.push_back({expert, assignments, static_cast<uint32_t>(serving_.size()), &slice});
        serving_.push_back(kNone);
        had_a_choice_ = had_a_choice_ || slice.size() > 1;
        if (HasShares(replicas[expert])) {
          has_shares_ = true;
          demands_.back().shares = &replicas[expert].shares.front();
        }
        for (const mesh::NodeIndex node : slice) {
          AddCandidate(node, work);
        }
      }
    }
  }
}

void ReplicaChoice::AddCandidate(mesh::NodeIndex node, WorkOfNode work) {
  GrowTo(&position_, size_t{node} + 1, kNone);
  if (position_[node] == kNone) {
    position_[node] = static_cast<uint32_t>(candidates_.size());
    Candidate& added = candidates_.emplace_back();
    added.node.node = node;
    added.node.rows_in_flight = work(node);
  }
}

// The set of rows that hit each expert; none yet for the nodes.
void ReplicaChoice::CollectRows(const Assignments& assignments) {
  words_ = Words(assignments.rows.size());
  GrowTo(&set_of_expert_, serves_.size());
  uint32_t sets = 0;
  for (const Demand& demand : demands_) {
    if (demand.serving == serves_[demand.expert].begin) {  // The first of its slices.
      set_of_expert_[demand.expert] = sets++;
    }
  }
  GrowTo(&expert_rows_, sets * words_);
  GrowTo(&node_rows_, candidates_.size() * words_);
  std::fill_n(expert_rows_.begin(), sets * words_, 0);
  std::fill_n(node_rows_.begin(), candidates_.size() * words_, 0);
  for (size_t row = 0; row < assignments.rows.size(); ++row) {
    const uint64_t bit = uint64_t{1} << (row % kWordBits);
    for (uint32_t a = assignments.row_begin[row]; a < assignments.row_begin[row + 1]; ++a) {
      const uint32_t expert = assignments.expert_ids[a];
      if (serves_[expert].count > 0) {
        RowsOfExpert(expert)[row / kWordBits] |= bit;
      }
    }
  }
}

uint64_t ReplicaChoice::NewRows(const Demand& demand, mesh::NodeIndex node) {
  const uint64_t* wanted = RowsOfExpert(demand.expert);
  const uint64_t* there = RowsOfNode(node);
  uint64_t rows = 0;
  for (size_t word = 0; word < words_; ++word) {
    rows += static_cast<uint64_t>(std::popcount(wanted[word] & ~there[word]));
  }
  return rows;
}

void ReplicaChoice::ServeBy(Demand& demand, mesh::NodeIndex node) {
  Candidate& taker = candidate(node);
  taker.chosen = true;
  taker.node.assignments += demand.assignments;
  serving_[demand.serving] = node;
  demand.served = true;
  if (had_a_choice_) {
    const uint64_t* rows = RowsOfExpert(demand.expert);
    uint64_t* there = RowsOfNode(node);
    for (size_t word = 0; word < words_; ++word) {
      there[word] |= rows[word];
    }
  }
}

// Divided ones first: others may then join their nodes.
void ReplicaChoice::ServeByShares(const std::vector<mesh::ExpertReplicas>& replicas,
                                  uint32_t layer) {
  for (const bool divided : {true, false}) {
    for (Demand& demand : demands_) {
      if (demand.shares == nullptr || divided != (demand.assignments >= kDividedFrom)) {
        continue;
      }
      const absl::Span<float> owed =
          accounts_.Owe(layer, replicas, demand.expert, static_cast<float>(demand.assignments));
      if (divided) {
        Divide(&demand, owed);
      } else {
        const size_t at = MostOwed(demand, owed);
        owed[at] -= static_cast<float>(demand.assignments);
        ServeBy(demand, (*demand.candidates)[at]);
      }
    }
  }
}

// Among the replicas that are owed most, or nearly so, the one in use with the fewest new rows, or
// else the one that is owed most.
size_t ReplicaChoice::MostOwed(const Demand& demand, absl::Span<const float> owed) {
  const auto most = static_cast<size_t>(std::max_element(owed.begin(), owed.end()) - owed.begin());
  size_t best = most;
  std::tuple<uint64_t, uint64_t> least;
  bool joins = false;
  for (size_t i = 0; i < owed.size(); ++i) {
    const mesh::NodeIndex node = (*demand.candidates)[i];
    if ((*demand.shares)[i] > 0 && owed[i] >= owed[most] - kSlack && candidate(node).chosen) {
      const std::tuple<uint64_t, uint64_t> cost(NewRows(demand, node), Work(candidate(node)));
      if (!joins || cost < least) {
        best = i;
        least = cost;
        joins = true;
      }
    }
  }
  return best;
}

// Every replica gets what it is owed, in placement order, so that each has successive rows; what is
// too little for a part goes to the one that is owed most.
void ReplicaChoice::Divide(Demand* demand, absl::Span<float> owed) {
  const auto most = static_cast<size_t>(std::max_element(owed.begin(), owed.end()) - owed.begin());
  const uint32_t all = demand->assignments;
  const uint32_t of_others = all - std::min(all, static_cast<uint32_t>(owed[most]));
  const auto part_of = [&](size_t i, uint32_t left) {
    return i == most || owed[i] < kLeastPart ? 0 : std::min(static_cast<uint32_t>(owed[i]), left);
  };
  uint32_t left = of_others;
  for (size_t i = 0; i < owed.size(); ++i) {
    left -= part_of(i, left);
  }
  const uint32_t of_most = all - of_others + left;
  serves_[demand->expert].part = static_cast<uint32_t>(parts_.size());
  left = of_others;
  uint32_t before = 0;
  for (size_t i = 0; i < owed.size(); ++i) {
    const uint32_t part = i == most ? of_most : part_of(i, left);
    left -= i == most ? 0 : part;
    owed[i] -= static_cast<float>(part);
    if (part > 0) {
      ServePartBy(*demand, (*demand->candidates)[i], before, part);
      before += part;
    }
  }
  serving_[demand->serving] = parts_[serves_[demand->expert].part].node;
  demand->served = true;
}

// `part` assignments after the first `before`.
void ReplicaChoice::ServePartBy(const Demand& demand, mesh::NodeIndex node, uint32_t before,
                                uint32_t part) {
  Candidate& taker = candidate(node);
  taker.chosen = true;
  taker.node.assignments += part;
  parts_.push_back({node, part});
  const uint64_t* rows = RowsOfExpert(demand.expert);
  uint64_t* there = RowsOfNode(node);
  uint32_t seen = 0;
  for (size_t word = 0; word < words_ && seen < before + part; ++word) {
    const auto here = static_cast<uint32_t>(std::popcount(rows[word]));
    if (seen >= before && seen + here <= before + part) {
      there[word] |= rows[word];
    } else if (seen + here > before) {
      uint32_t at = seen;
      for (uint64_t bits = rows[word]; bits != 0; bits &= bits - 1, ++at) {
        there[word] |= at >= before && at < before + part ? bits & -bits : 0;
      }
    }
    seen += here;
  }
}

// Serves every demand that a node in use can take.
void ReplicaChoice::JoinChosen() {
  for (Demand& demand : demands_) {
    if (demand.served) {
      continue;
    }
    mesh::NodeIndex best = kNone;
    std::tuple<uint64_t, uint64_t> least;
    for (const mesh::NodeIndex node : *demand.candidates) {
      if (candidate(node).chosen) {
        const std::tuple<uint64_t, uint64_t> cost(NewRows(demand, node), Work(candidate(node)));
        if (best == kNone || cost < least) {
          best = node;
          least = cost;
        }
      }
    }
    if (best != kNone) {
      ServeBy(demand, best);
    }
  }
}

void ReplicaChoice::ListUnserved() {
  entries_.clear();
  for (uint32_t d = 0; d < demands_.size(); ++d) {
    if (demands_[d].served) {
      continue;
    }
    for (const mesh::NodeIndex node : *demands_[d].candidates) {
      Candidate& taker = candidate(node);
      taker.coverable += demands_[d].assignments;
      entries_.push_back({d, taker.first_entry});
      taker.first_entry = static_cast<uint32_t>(entries_.size() - 1);
    }
  }
}

ReplicaChoice::Candidate* ReplicaChoice::MostCovering() {
  const auto better = [](const Candidate& a, const Candidate& b) {
    if (a.coverable != b.coverable) {
      return a.coverable > b.coverable;
    }
    return Work(a) != Work(b) ? Work(a) < Work(b) : a.node.node < b.node.node;
  };
  Candidate* best = nullptr;
  for (Candidate& next : candidates_) {
    if (next.coverable > 0 && (best == nullptr || better(next, *best))) {
      best = &next;
    }
  }
  return best;
}

// What is left has no candidate in use, so all that a newly chosen node can take is its own.
void ReplicaChoice::CoverTheRest() {
  if (entries_.empty()) {
    return;
  }
  while (Candidate* const chosen = MostCovering()) {
    for (uint32_t at = chosen->first_entry; at != kNone; at = entries_[at].next) {
      Demand& demand = demands_[entries_[at].demand];
      if (demand.served) {
        continue;
      }
      for (const mesh::NodeIndex node : *demand.candidates) {
        candidate(node).coverable -= demand.assignments;
      }
      ServeBy(demand, chosen->node.node);
    }
  }
}

// Turns the nodes in serving_ into positions in used_.
void ReplicaChoice::SortUsed() {
  used_.clear();
  for (const Candidate& one : candidates_) {
    if (one.chosen) {
      used_.push_back(one.node);
    }
  }
  std::sort(used_.begin(), used_.end(),
            [](const Node& a, const Node& b) { return a.node < b.node; });
  for (uint32_t i = 0; i < used_.size(); ++i) {
    position_[used_[i].node] = i;
  }
  for (uint32_t& node : serving_) {
    node = position_[node];
  }
  for (Part& part : parts_) {
    part.node = position_[part.node];
  }
  for (const Candidate& one : candidates_) {
    position_[one.node.node] = kNone;
  }
}

size_t ReplicaChoice::MemoryBytes() const {
  const auto bytes = [](const auto&... of) { return ((of.capacity() * sizeof(of[0])) + ...); };
  return accounts_.MemoryBytes() + bytes(hits_, hit_bits_, parts_, demands_, candidates_, position_,
                                         entries_, serves_, serving_, used_, set_of_expert_,
                                         expert_rows_, node_rows_);
}

}  // namespace expertmesh::plan
