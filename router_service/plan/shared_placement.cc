#include "router_service/plan/shared_placement.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

namespace expertmesh::plan {
namespace {

// How much fuller than level, as a part of it, a holder may be where that saves a transfer.
constexpr uint64_t kToleratedPart = 8;

}  // namespace

void SharedPlacement::Place(const std::vector<mesh::NodeIndex>& nodes, const SharedDemand& demand,
                            WorkOfNode work, NodePlanPool* pool, BatchPlan* plan) {
  const size_t rows = demand.weights.size();
  rows_here_.clear();
  if (nodes.empty()) {
    rows_here_.resize(rows);
    std::iota(rows_here_.begin(), rows_here_.end(), 0);
    return;
  }
  cost_ = demand.shared_parameters;
  CollectHolders(nodes, demand, work, *plan);
  CollectWhoHas(rows, *plan);
  if (const uint32_t left = KeepTogether(rows); left > 0) {
    SpreadRest(rows, left);
  }
  ListRows(rows);
  nothing_.Resize(0, 0);
  for (uint32_t holder = 0; holder < holders_.size(); ++holder) {
    if (holder == here_) {
      rows_here_.assign(RowsOf(holder).begin(), RowsOf(holder).end());
    } else if (holders_[holder].given > 0) {
      AddRows(holder, demand, pool, plan);
    }
  }
  std::sort(plan->nodes.begin(), plan->nodes.end(),
            [](const NodePlan& a, const NodePlan& b) { return a.node < b.node; });
}

void SharedPlacement::CollectHolders(const std::vector<mesh::NodeIndex>& nodes,
                                     const SharedDemand& demand, WorkOfNode work,
                                     const BatchPlan& plan) {
  holders_.clear();
  uint32_t next = 0;  // Both are in placement order.
  for (const mesh::NodeIndex node : nodes) {
    while (next < plan.nodes.size() && plan.nodes[next].node < node) {
      ++next;
    }
    const bool used = next < plan.nodes.size() && plan.nodes[next].node == node;
    const uint64_t planned = used ? plan.nodes[next].expert_ids.size() : 0;
    holders_.push_back(
        {node, used ? next : kNone, (planned + work(node)) * demand.routed_parameters});
  }
  here_ = kNone;
  if (demand.work_here.has_value()) {
    here_ = static_cast<uint32_t>(holders_.size());
    holders_.push_back({kHere, kNone, *demand.work_here});
  }
}

void SharedPlacement::CollectWhoHas(size_t rows, const BatchPlan& plan) {
  // Counted two places on, so that after the sums the place of row r is what is filled next for it.
  has_begin_.assign(rows + 2, 0);
  size_t all = 0;
  for (const Holder& holder : holders_) {
    if (holder.plan != kNone) {
      all += plan.nodes[holder.plan].rows.size();
      for (const uint32_t row : plan.nodes[holder.plan].rows) {
        ++has_begin_[row + 2];
      }
    }
  }
  std::partial_sum(has_begin_.begin(), has_begin_.end(), has_begin_.begin());
  who_has_.resize(all);
  for (uint32_t holder = 0; holder < holders_.size(); ++holder) {
    if (holders_[holder].plan != kNone) {
      for (const uint32_t row : plan.nodes[holders_[holder].plan].rows) {
        who_has_[has_begin_[row + 1]++] = holder;
      }
    }
  }
}

void SharedPlacement::SortByWork() {
  by_work_.resize(holders_.size());
  std::iota(by_work_.begin(), by_work_.end(), 0);
  std::sort(by_work_.begin(), by_work_.end(), [this](uint32_t a, uint32_t b) {
    return std::make_tuple(holders_[a].work, a) < std::make_tuple(holders_[b].work, b);
  });
}

uint64_t SharedPlacement::Level(uint64_t rows) const {
  uint64_t sum = rows * cost_;
  uint64_t level = 0;
  for (size_t filled = 1; filled <= by_work_.size(); ++filled) {
    sum += holders_[by_work_[filled - 1]].work;
    level = sum / filled;
    if (filled < by_work_.size() && level <= holders_[by_work_[filled]].work) {
      break;
    }
  }
  return level;
}

void SharedPlacement::Give(uint32_t row, uint32_t holder) {
  holder_of_[row] = holder;
  holders_[holder].work += cost_;
  ++holders_[holder].given;
}

uint32_t SharedPlacement::KeepTogether(size_t rows) {
  SortByWork();
  const uint64_t level = Level(rows);
  const uint64_t limit = level + std::max(cost_, level / kToleratedPart);
  holder_of_.assign(rows, kNone);
  uint32_t left = 0;
  for (uint32_t row = 0; row < rows; ++row) {
    uint32_t best = here_;
    for (uint32_t at = has_begin_[row]; at < has_begin_[row + 1]; ++at) {
      const uint32_t holder = who_has_[at];
      if (best == kNone || holders_[holder].work < holders_[best].work ||
          (best == here_ && holders_[holder].work == holders_[best].work)) {
        best = holder;
      }
    }
    if (best != kNone && holders_[best].work + cost_ <= limit) {
      Give(row, best);
    } else {
      ++left;
    }
  }
  return left;
}

void SharedPlacement::SpreadRest(size_t rows, uint32_t left) {
  SortByWork();
  const uint64_t level = Level(left);
  uint32_t without = left;
  for (const uint32_t at : by_work_) {
    Holder& holder = holders_[at];
    const uint64_t fits = holder.work < level ? (level - holder.work) / cost_ : 0;
    holder.room = static_cast<uint32_t>(std::min<uint64_t>(fits, without));
    without -= holder.room;
  }
  // What is lost by whole rows, at most one for each holder that was filled.
  for (size_t next = 0; without > 0; next = (next + 1) % by_work_.size()) {
    ++holders_[by_work_[next]].room;
    --without;
  }
  uint32_t holder = 0;
  for (uint32_t row = 0; row < rows; ++row) {
    if (holder_of_[row] == kNone) {
      while (holders_[holder].room == 0) {
        ++holder;
      }
      --holders_[holder].room;
      Give(row, holder);
    }
  }
}

void SharedPlacement::ListRows(size_t rows) {
  given_begin_.assign(holders_.size() + 2, 0);
  for (uint32_t holder = 0; holder < holders_.size(); ++holder) {
    given_begin_[holder + 2] = given_begin_[holder + 1] + holders_[holder].given;
  }
  given_rows_.resize(rows);
  for (uint32_t row = 0; row < rows; ++row) {
    given_rows_[given_begin_[holder_of_[row] + 1]++] = row;
  }
}

absl::Span<const uint32_t> SharedPlacement::RowsOf(uint32_t holder) const {
  return absl::MakeConstSpan(given_rows_)
      .subspan(given_begin_[holder], given_begin_[holder + 1] - given_begin_[holder]);
}

void SharedPlacement::AddRows(uint32_t holder, const SharedDemand& demand, NodePlanPool* pool,
                              BatchPlan* plan) {
  pool->Take(1, &spare_);
  NodePlan to = std::move(spare_.back());
  spare_.pop_back();
  to.node = holders_[holder].node;
  const bool used = holders_[holder].plan != kNone;
  const NodePlan& from = used ? plan->nodes[holders_[holder].plan] : nothing_;
  const absl::Span<const uint32_t> added = RowsOf(holder);
  const size_t sent = from.rows.size();
  to.Resize(sent + added.size(), from.expert_ids.size() + added.size());
  uint32_t row_count = 0;
  uint32_t assignments = 0;
  for (size_t i = 0, next = 0; i < sent || next < added.size(); ++row_count) {
    const bool has = i < sent && (next == added.size() || from.rows[i] <= added[next]);
    const uint32_t row = has ? from.rows[i] : added[next];
    to.rows[row_count] = row;
    to.row_begin[row_count] = assignments;
    if (has) {
      for (uint32_t a = from.row_begin[i]; a < from.row_begin[i + 1]; ++a, ++assignments) {
        to.expert_ids[assignments] = from.expert_ids[a];
        to.expert_weights[assignments] = from.expert_weights[a];
      }
      ++i;
    }
    if (next < added.size() && added[next] == row) {
      to.expert_ids[assignments] = demand.expert;
      to.expert_weights[assignments++] = demand.weights[row];
      ++next;
    }
  }
  to.row_begin[row_count] = assignments;
  to.Resize(row_count, assignments);
  plan->transfers += row_count - sent;
  plan->uniform_transfers += static_cast<double>(row_count - sent);
  if (used) {
    std::swap(to, plan->nodes[holders_[holder].plan]);
    pool->Recycle(std::move(to));
  } else {
    plan->nodes.push_back(std::move(to));
  }
}

size_t SharedPlacement::MemoryBytes() const {
  const auto bytes = [](const auto&... of) { return ((of.capacity() * sizeof(of[0])) + ...); };
  return bytes(holders_, by_work_, has_begin_, who_has_, holder_of_, given_rows_, given_begin_,
               spare_, rows_here_);
}

}  // namespace expertmesh::plan
