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

NodeMetrics::NodeMetrics(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)) {
  SetState(v1::NODE_STATE_LOADING);
}

void NodeMetrics::RecordComputed(uint32_t layer, size_t rows, absl::Duration duration,
                                 absl::Span<const uint64_t> assignments) {
  batch_rows_.Observe(static_cast<double>(rows));
  forward_seconds_.Observe(absl::ToDoubleSeconds(duration));
  for (uint32_t expert = 0; expert < assignments.size(); ++expert) {
    if (assignments[expert] > 0) {
      Tokens(layer, expert).Increment(static_cast<double>(assignments[expert]));
    }
  }
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

void NodeMetrics::AddExpertSeries(uint32_t layer, absl::Span<const uint32_t> experts) {
  for (const uint32_t expert : experts) {
    Tokens(layer, expert);
  }
}

prometheus::Counter& NodeMetrics::Tokens(uint32_t layer, uint32_t expert) {
  const absl::MutexLock lock(&mutex_);
  prometheus::Counter*& counter = tokens_of_[{layer, expert}];
  if (counter == nullptr) {
    counter = &tokens_.Add({{"layer", std::to_string(layer)}, {"expert", std::to_string(expert)}});
  }
  return *counter;
}

}  // namespace expertmesh::node
