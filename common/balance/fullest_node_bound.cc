#include "common/balance/fullest_node_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace expertmesh::balance {
namespace {

// Fewest copies of an expert when none does more than `rows`.
double CopiesFor(double load, double rows) {
  return std::max(1.0, std::ceil((load / rows) * (1 - 1e-12)));
}

// As many of all experts.
double CopiesNeeded(const LayerProblem& problem, absl::Span<const uint32_t> by_load, double rows) {
  double copies = static_cast<double>(problem.experts()) * problem.min_copies;
  for (const uint32_t expert : by_load) {
    const double needed = CopiesFor(problem.loads[expert], rows);
    if (needed <= 1) {
      break;  // And so for all that follow.
    }
    copies += std::max(0.0, needed - problem.min_copies);
  }
  return copies;
}

// Where each slot is needed for another expert, the largest is whole, and its node is full of
// others: at least of the smallest. 0 where there are slots to spare.
double ByFullSlots(const LayerProblem& problem, absl::Span<const uint32_t> by_load) {
  uint64_t slots = 0;
  for (const uint32_t of_node : problem.slots) {
    slots += of_node;
  }
  if (problem.min_copies > 1 || slots > by_load.size()) {
    return 0;
  }
  double least = std::numeric_limits<double>::infinity();
  for (uint32_t node = 0; node < problem.nodes(); ++node) {
    double rows = problem.loads[by_load.front()];
    for (uint32_t other = 1; other < problem.slots[node]; ++other) {
      rows += problem.loads[by_load[by_load.size() - other]];
    }
    if (problem.slots[node] > 0) {
      least = std::min(least, rows / problem.rates[node]);
    }
  }
  return least;
}

// The least level at which the copies that are needed have slots; `low` is a bound already.
double BySlots(const LayerProblem& problem, absl::Span<const uint32_t> by_load, double low,
               double highest_rate) {
  double slots = 0;
  for (const uint32_t of_node : problem.slots) {
    slots += of_node;
  }
  const auto fits = [&](double level) {
    return CopiesNeeded(problem, by_load, level * highest_rate) <= slots;
  };
  double high = std::max(low, problem.loads[by_load.front()] / highest_rate);
  if (low <= 0 || fits(low) || !fits(high)) {
    return low;
  }
  for (int step = 0; step < 60 && high > low * (1 + 1e-9); ++step) {
    const double middle = (low + high) / 2;
    (fits(middle) ? high : low) = middle;
  }
  // Exactly: the level of the fullest copy when all have as many as they need at `high`.
  double exact = low;
  for (const uint32_t expert : by_load) {
    const double load = problem.loads[expert];
    exact = std::max(exact, load / CopiesFor(load, high * highest_rate) / highest_rate);
  }
  return std::min(exact, high);
}

}  // namespace

void FullestNodeBound::CollectNodes(const LayerProblem& problem, absl::Span<const uint32_t> by_load,
                                    const LayerCopies& held) {
  sums_.resize(by_load.size() + 1);
  sums_[0] = 0;
  for (size_t i = 0; i < by_load.size(); ++i) {
    sums_[i + 1] = sums_[i] + problem.loads[by_load[i]];
  }
  nodes_.clear();
  for (uint32_t node = 0; node < problem.nodes(); ++node) {
    double most = 0;
    if (problem.accepts[node] != 0) {
      most = sums_[std::min<size_t>(problem.slots[node], by_load.size())];
    } else {
      for (uint32_t at = held.first_of_node(node); at != LayerCopies::kNone;
           at = held.copy(at).next_of_node) {
        most += problem.loads[held.copy(at).expert];
      }
    }
    if (most > 0) {
      nodes_.push_back({problem.rates[node], most});
    }
  }
}

// Takes out the nodes that are at their most until the others can share what is left alike.
double FullestNodeBound::ByRows(double rows) {
  double rate = 0;
  for (const Node& node : nodes_) {
    rate += node.rate;
  }
  size_t count = nodes_.size();
  while (count > 0) {
    const double level = rows / rate;
    const auto limited =
        std::partition(nodes_.begin(), nodes_.begin() + static_cast<ptrdiff_t>(count),
                       [level](const Node& node) { return node.most_rows >= level * node.rate; });
    const auto left = static_cast<size_t>(limited - nodes_.begin());
    if (left == count) {
      return level;
    }
    for (size_t i = left; i < count; ++i) {
      rows -= nodes_[i].most_rows;
      rate -= nodes_[i].rate;
    }
    count = left;
  }
  return 0;
}

double FullestNodeBound::Of(const LayerProblem& problem, absl::Span<const uint32_t> by_load,
                            const LayerCopies& held) {
  CollectNodes(problem, by_load, held);
  if (nodes_.empty()) {
    return 0;
  }
  const double by_rows = ByRows(sums_.back());
  const size_t most_copies = std::min<size_t>(problem.max_copies, nodes_.size());
  std::partial_sort(nodes_.begin(), nodes_.begin() + static_cast<ptrdiff_t>(most_copies),
                    nodes_.end(), [](const Node& a, const Node& b) { return a.rate > b.rate; });
  double highest = 0;
  for (size_t i = 0; i < most_copies; ++i) {
    highest += nodes_[i].rate;
  }
  const double by_expert = problem.loads[by_load.front()] / highest;
  return BySlots(problem, by_load, std::max({by_rows, by_expert, ByFullSlots(problem, by_load)}),
                 nodes_.front().rate);
}

}  // namespace expertmesh::balance
