#include "expert_service/node_metrics.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"

namespace expertmesh::node {
namespace {

constexpr v1::NodeState kStates[] = {v1::NODE_STATE_LOADING, v1::NODE_STATE_READY,
                                     v1::NODE_STATE_DRAINING, v1::NODE_STATE_FAILED};

// "loading" and so on.
std::string StateLabel(v1::NodeState state) {
  return absl::AsciiStrToLower(absl::StripPrefix(v1::NodeState_Name(state), "NODE_STATE_"));
}

}  // namespace

NodeMetrics::NodeMetrics(std::shared_ptr<prometheus::Registry> registry,
                         const telemetry::ExpertMetricsOptions& experts, Clock* clock)
    : registry_(std::move(registry)), computed_(std::make_shared<ComputedCounts>(experts, clock)) {
  SetState(v1::NODE_STATE_LOADING);
}

void NodeMetrics::RecordComputed(uint32_t layer, size_t batches, size_t rows,
                                 absl::Duration duration, absl::Span<const uint64_t> assignments) {
  batch_requests_.Observe(static_cast<double>(batches));
  batch_rows_.Observe(static_cast<double>(rows));
  forward_seconds_.Observe(duration);
  computed_->Add(layer, assignments);
}

void NodeMetrics::CountRejected(absl::StatusCode code) {
  CountReason(absl::AsciiStrToLower(absl::StatusCodeToString(code)));
}

void NodeMetrics::CountReason(absl::string_view reason) {
  rejected_.Add({{"reason", std::string(reason)}}).Increment();
}

void NodeMetrics::SetState(v1::NodeState state) {
  for (const v1::NodeState each : kStates) {
    state_.Add({{"state", StateLabel(each)}}).Set(each == state ? 1 : 0);
  }
}

}  // namespace expertmesh::node
