#include "common/telemetry/exemplars.h"

#include <algorithm>
#include <utility>

namespace expertmesh::telemetry {

void ExemplarSlot::Put(const Exemplar& exemplar) {
  uint64_t version = version_.load(std::memory_order_relaxed);
  if (version % 2 == 1 ||
      !version_.compare_exchange_strong(version, version + 1, std::memory_order_acq_rel)) {
    return;  // Another one is being put, which is as new.
  }
  // Released one by one: who reads any of them reads the odd version, too.
  trace_high_.store(exemplar.context.trace_id.high, std::memory_order_release);
  trace_low_.store(exemplar.context.trace_id.low, std::memory_order_release);
  span_id_.store(exemplar.context.span_id, std::memory_order_release);
  value_.store(exemplar.value, std::memory_order_release);
  unix_nanos_.store(absl::ToUnixNanos(exemplar.time), std::memory_order_release);
  version_.store(version + 2, std::memory_order_release);
}

std::optional<Exemplar> ExemplarSlot::Get() const {
  constexpr int kTries = 4;
  for (int i = 0; i < kTries; ++i) {
    const uint64_t before = version_.load(std::memory_order_acquire);
    if (before == 0) {
      return std::nullopt;
    }
    Exemplar found;
    found.context.trace_id.high = trace_high_.load(std::memory_order_acquire);
    found.context.trace_id.low = trace_low_.load(std::memory_order_acquire);
    found.context.span_id = span_id_.load(std::memory_order_acquire);
    found.value = value_.load(std::memory_order_acquire);
    found.time = absl::FromUnixNanos(unix_nanos_.load(std::memory_order_acquire));
    if (before % 2 == 0 && version_.load(std::memory_order_relaxed) == before) {
      return found;
    }
  }
  return std::nullopt;
}

ExemplarSlots::ExemplarSlots(std::vector<double> bounds)
    : bounds_(std::move(bounds)), slots_(bounds_.size() + 1) {}

void ExemplarSlots::Put(const Exemplar& exemplar) {
  if (exemplar.context.valid()) {
    const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), exemplar.value);
    slots_[static_cast<size_t>(bucket - bounds_.begin())].Put(exemplar);
  }
}

std::optional<Exemplar> ExemplarSlots::Get(size_t bucket) const {
  return bucket < slots_.size() ? slots_[bucket].Get() : std::nullopt;
}

ExemplarSlots* Exemplars::Add(const std::string& name, const prometheus::Labels& labels,
                              std::vector<double> bounds) {
  absl::MutexLock lock(&mutex_);
  std::list<Series>& all = series_of_[name];
  for (Series& series : all) {
    if (series.labels == labels) {
      return &series.slots;
    }
  }
  return &all.emplace_back(labels, std::move(bounds)).slots;
}

void Exemplars::Remove(const std::string& name, const prometheus::Labels& labels) {
  absl::MutexLock lock(&mutex_);
  series_of_[name].remove_if([&labels](const Series& series) { return series.labels == labels; });
}

std::vector<std::optional<Exemplar>> Exemplars::Find(const std::string& name,
                                                     const prometheus::Labels& labels,
                                                     size_t buckets) const {
  absl::MutexLock lock(&mutex_);
  const auto found = series_of_.find(name);
  if (found == series_of_.end()) {
    return {};
  }
  for (const Series& series : found->second) {
    if (series.labels == labels) {
      std::vector<std::optional<Exemplar>> exemplars(buckets);
      for (size_t i = 0; i < buckets; ++i) {
        exemplars[i] = series.slots.Get(i);
      }
      return exemplars;
    }
  }
  return {};
}

}  // namespace expertmesh::telemetry
