#include "router_service/balance/load_counts.h"

#include <algorithm>

#include "common/base/check.h"

namespace expertmesh::balance_control {
namespace {

// From so many assignments on they are added up first: an atomic addition each would cost more.
constexpr size_t kAddUpFrom = 64;
constexpr double kMillion = 1e6;

void AddTo(std::atomic<uint64_t>* counter, uint64_t count) {
  counter->fetch_add(count, std::memory_order_relaxed);
}

}  // namespace

LayerCounts& LayerCounts::operator+=(const LayerCounts& other) {
  tokens += other.tokens;
  compared += other.compared;
  changed += other.changed;
  node_us += other.node_us;
  if (assignments.empty()) {
    assignments.resize(other.assignments.size());
  }
  EXPERTMESH_CHECK(assignments.size() == other.assignments.size());
  for (size_t expert = 0; expert < assignments.size(); ++expert) {
    assignments[expert] += other.assignments[expert];
  }
  return *this;
}

LayerCounts LayerCounts::Since(const LayerCounts& before) const {
  // What is read while a batch is counted is not of one moment: no difference is below 0 for that.
  const auto less = [](uint64_t now, uint64_t then) { return now > then ? now - then : 0; };
  LayerCounts since;
  since.tokens = less(tokens, before.tokens);
  since.compared = less(compared, before.compared);
  since.changed = less(changed, before.changed);
  since.node_us = less(node_us, before.node_us);
  since.assignments = assignments;
  for (size_t expert = 0; expert < before.assignments.size(); ++expert) {
    since.assignments[expert] = less(assignments[expert], before.assignments[expert]);
  }
  return since;
}

void AddCounts(const LoadCounts& counts, LoadCounts* to) {
  for (const auto& [layer, layer_counts] : counts) {
    (*to)[layer] += layer_counts;
  }
}

void LayerCounters::Add(const gate::RoutedTokens& routed, std::vector<uint32_t>* scratch) {
  AddTo(&tokens_, routed.tokens());
  if (routed.compared > 0) {
    AddTo(&compared_, routed.compared);
    AddTo(&changed_, routed.changed);
  }
  if (routed.expert_ids.size() < kAddUpFrom) {
    for (const uint32_t expert : routed.expert_ids) {
      AddTo(&assignments_[expert], 1);
    }
    return;
  }
  scratch->assign(assignments_.size(), 0);
  for (const uint32_t expert : routed.expert_ids) {
    ++(*scratch)[expert];
  }
  uint32_t largest = 0;
  for (size_t expert = 0; expert < assignments_.size(); ++expert) {
    if ((*scratch)[expert] > 0) {
      AddTo(&assignments_[expert], (*scratch)[expert]);
      largest = std::max(largest, (*scratch)[expert]);
    }
  }
  const double mean =
      static_cast<double>(routed.expert_ids.size()) / static_cast<double>(assignments_.size());
  AddTo(&batches_, 1);
  AddTo(&violations_, static_cast<uint64_t>((largest / mean - 1) * kMillion));
}

double LayerCounters::MeanBatchViolation() const {
  const uint64_t batches = batches_.load(std::memory_order_relaxed);
  const uint64_t violations = violations_.load(std::memory_order_relaxed);
  return batches == 0 ? 0
                      : static_cast<double>(violations) / kMillion / static_cast<double>(batches);
}

LayerCounts LayerCounters::Read() const {
  LayerCounts counts;
  counts.tokens = tokens_.load(std::memory_order_relaxed);
  counts.compared = compared_.load(std::memory_order_relaxed);
  counts.changed = changed_.load(std::memory_order_relaxed);
  counts.node_us = node_us_.load(std::memory_order_relaxed);
  counts.assignments.reserve(assignments_.size());
  for (const std::atomic<uint64_t>& assignments : assignments_) {
    counts.assignments.push_back(assignments.load(std::memory_order_relaxed));
  }
  return counts;
}

}  // namespace expertmesh::balance_control
