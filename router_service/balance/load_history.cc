#include "router_service/balance/load_history.h"

#include <utility>

namespace expertmesh::balance_control {

void LoadHistory::Keep(const Sample& sample, absl::Duration every, absl::Duration length,
                       std::deque<Sample>* samples) {
  if (samples->empty() || sample.at - samples->back().at >= every) {
    samples->push_back(sample);
  }
  while (samples->size() > 1 && sample.at - (*samples)[1].at >= length) {
    samples->pop_front();
  }
}

void LoadHistory::Add(absl::Time at, std::shared_ptr<const LoadCounts> totals) {
  newest_ = {at, std::move(totals)};
  Keep(newest_, kShortWindow, kWindow, &seconds_);
  Keep(newest_, kWindow, kLongWindow, &minutes_);
}

LoadWindow LoadHistory::Last(absl::Duration window) const {
  const Sample* from = nullptr;
  for (const std::deque<Sample>* samples : {&minutes_, &seconds_}) {
    for (const Sample& sample : *samples) {
      // The newest that is old enough, or else the oldest.
      if (from == nullptr || newest_.at - sample.at >= window) {
        from = &sample;
      }
    }
  }
  LoadWindow result;
  if (from == nullptr || from->at == newest_.at) {
    return result;
  }
  result.span = newest_.at - from->at;
  for (const auto& [layer, counts] : *newest_.totals) {
    const auto before = from->totals->find(layer);
    result.counts[layer] = before == from->totals->end() ? counts : counts.Since(before->second);
  }
  return result;
}

}  // namespace expertmesh::balance_control
