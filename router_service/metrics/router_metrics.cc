#include "router_service/metrics/router_metrics.h"

namespace expertmesh::metrics {

void RouterMetrics::CountRequest(absl::StatusCode code) {
  // Codes of other senders count as unknown.
  size_t index = static_cast<size_t>(code);
  index =
      index < requests_of_code_.size() ? index : static_cast<size_t>(absl::StatusCode::kUnknown);
  prometheus::Counter* counter = requests_of_code_[index].load(std::memory_order_acquire);
  if (counter == nullptr) {
    // The same for everyone who asks.
    counter = &requests_.Add({{"code", absl::StatusCodeToString(absl::StatusCode(index))}});
    requests_of_code_[index].store(counter, std::memory_order_release);
  }
  counter->Increment();
}

void RouterMetrics::AddSeries() {
  for (const char* const verdict : {"fault", "confirmed", "unconfirmed"}) {
    nonfinite_answers_.Add({{"verdict", verdict}});
  }
  for (const char* const result : {"agree", "disagree"}) {
    cross_checks_.Add({{"result", result}});
  }
  for (const char* const result : {"right", "wrong"}) {
    sum_checks_.Add({{"result", result}});
  }
}

telemetry::TracedHistogram RouterMetrics::Stage(const char* stage) {
  return telemetry::AddTraced(stages_, &exemplars, table::kStageDurationSeconds, {{"stage", stage}},
                              telemetry::DurationBuckets());
}

RouterMetrics::NodeSeries RouterMetrics::TakeNode(const std::string& address,
                                                  const std::vector<std::string>& faults) {
  const absl::MutexLock lock(&nodes_mutex_);
  ++nodes_in_use_[address];
  for (const std::string& fault : faults) {
    node_faults_.Add({{"fault", fault}, {"node", address}});
  }
  node_ejections_.Add({{"node", address}});
  // The same for everyone who asks.
  return {telemetry::AddTraced(node_calls_, &exemplars, table::kNodeCallDurationSeconds,
                               {{"node", address}}, telemetry::DurationBuckets()),
          node_bytes_.Add({{"node", address}, {"direction", "sent"}}),
          node_bytes_.Add({{"node", address}, {"direction", "received"}})};
}

void RouterMetrics::GiveBackNode(const std::string& address,
                                 const std::vector<std::string>& faults) {
  const absl::MutexLock lock(&nodes_mutex_);
  if (--nodes_in_use_[address] > 0) {
    return;
  }
  nodes_in_use_.erase(address);
  exemplars.Remove(table::kNodeCallDurationSeconds.name, {{"node", address}});
  node_calls_.Remove(&node_calls_.Add({{"node", address}}, telemetry::DurationBuckets()));
  for (const std::string& fault : faults) {
    node_faults_.Remove(&node_faults_.Add({{"fault", fault}, {"node", address}}));
  }
  node_ejections_.Remove(&node_ejections_.Add({{"node", address}}));
  for (const char* const direction : {"sent", "received"}) {
    node_bytes_.Remove(&node_bytes_.Add({{"node", address}, {"direction", direction}}));
  }
}

}  // namespace expertmesh::metrics
