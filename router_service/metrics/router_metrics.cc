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

}  // namespace expertmesh::metrics
