// What was routed, layer by layer and expert by expert: counters that batches add to, and totals
// that are read from them.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_COUNTS_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_COUNTS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "common/gate/routed_tokens.h"

namespace expertmesh::balance_control {

// Totals of one layer, since some start. Plain data.
struct LayerCounts {
  // Tokens routed.
  uint64_t tokens = 0;
  // Those whose experts were chosen with a live bias, and how many of them got another set by it.
  uint64_t compared = 0;
  uint64_t changed = 0;
  // Time that nodes computed, by their clocks, of all nodes together.
  uint64_t node_us = 0;
  // [num_experts] What was dropped for want of capacity is not counted.
  std::vector<uint64_t> assignments;

  // Both have as many experts.
  LayerCounts& operator+=(const LayerCounts& other);
  // `before` is an earlier total of the same.
  LayerCounts Since(const LayerCounts& before) const;

  friend bool operator==(const LayerCounts&, const LayerCounts&) = default;
};

// By layer.
using LoadCounts = std::map<uint32_t, LayerCounts>;

// Adds layer by layer.
void AddCounts(const LoadCounts& counts, LoadCounts* to);

// What batches of one layer add to. Thread-safe, without a lock; a total that is read while a batch
// is counted may have some of it, and has all of it later.
class LayerCounters {
 public:
  explicit LayerCounters(uint32_t num_experts) : assignments_(num_experts) {}

  // One routed batch. `scratch`: memory that is used again.
  void Add(const gate::RoutedTokens& routed, std::vector<uint32_t>* scratch);
  // MaxVio(batch) (Wang et al. 2024): the mean over batches of so many assignments and more, of
  // which a share says something, of (largest load - mean) / mean. 0 before the first.
  double MeanBatchViolation() const;
  void AddNodeTime(uint64_t microseconds) {
    node_us_.fetch_add(microseconds, std::memory_order_relaxed);
  }

  LayerCounts Read() const;

  // True for the first of every `one_in` calls.
  bool TakeSample(uint32_t one_in) {
    return samples_.fetch_add(1, std::memory_order_relaxed) % one_in == 0;
  }

 private:
  std::atomic<uint64_t> tokens_{0};
  std::atomic<uint64_t> compared_{0};
  std::atomic<uint64_t> changed_{0};
  std::atomic<uint64_t> node_us_{0};
  std::atomic<uint32_t> samples_{0};
  // Batches that were added up, and their MaxVio in millionths.
  std::atomic<uint64_t> batches_{0};
  std::atomic<uint64_t> violations_{0};
  std::vector<std::atomic<uint64_t>> assignments_;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_COUNTS_H_
