#include "expert_service/node_metrics.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "common/telemetry/metrics.h"

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
    : registry_(std::move(registry)),
      tokens_(prometheus::BuildCounter()
                  .Name("expertmesh_expert_tokens_total")
                  .Help("Assignments (token, expert) computed")
                  .Register(*registry_)),
      batch_rows_(prometheus::BuildHistogram()
                      .Name("expertmesh_expert_batch_rows")
                      .Help("Token rows computed together, over all streams")
                      .Register(*registry_)
                      .Add({}, telemetry::RowBuckets())),
      queue_seconds_(prometheus::BuildHistogram()
                         .Name("expertmesh_expert_queue_duration_seconds")
                         .Help("Time from a complete batch until its computation starts")
                         .Register(*registry_)
                         .Add({}, telemetry::DurationBuckets())),
      forward_seconds_(prometheus::BuildHistogram()
                           .Name("expertmesh_expert_forward_duration_seconds")
                           .Help("Time to gather and compute one merged batch")
                           .Register(*registry_)
                           .Add({}, telemetry::DurationBuckets())),
      rejected_(prometheus::BuildCounter()
                    .Name("expertmesh_expert_rejected_total")
                    .Help("Batches answered with an error, or dropped because their stream is gone")
                    .Register(*registry_)),
      weights_bytes_(prometheus::BuildGauge()
                         .Name("expertmesh_expert_weights_loaded_bytes")
                         .Help("Weights held")
                         .Register(*registry_)
                         .Add({})),
      checkpoint_bytes_(prometheus::BuildGauge()
                            .Name("expertmesh_expert_weights_checkpoint_bytes")
                            .Help("What the experts now held take in the checkpoint")
                            .Register(*registry_)
                            .Add({})),
      nonfinite_(prometheus::BuildCounter()
                     .Name("expertmesh_expert_nonfinite_tokens_total")
                     .Help("Token rows received with NaN or infinite values")
                     .Register(*registry_)
                     .Add({})),
      queue_rows_(prometheus::BuildGauge()
                      .Name("expertmesh_expert_queue_rows")
                      .Help("Token rows waiting to be computed")
                      .Register(*registry_)
                      .Add({})),
      state_(prometheus::BuildGauge()
                 .Name("expertmesh_expert_state")
                 .Help("1 for the state the node is in")
                 .Register(*registry_)),
      partials_error_(*registry_, "expertmesh_expert_wire_relative_error",
                      "Relative change of a row by its encoding, of one row in each batch",
                      {{"direction", "partials"}}, telemetry::RelativeErrorBuckets()),
      partials_overflow_(*registry_, "expertmesh_expert_wire_overflow_rows_total", "partials") {
  SetState(v1::NODE_STATE_LOADING);
}

void NodeMetrics::RecordQueueing(absl::Duration wait) {
  queue_seconds_.Observe(absl::ToDoubleSeconds(wait));
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

void NodeMetrics::CountDropped() { CountReason("stream_gone"); }

void NodeMetrics::CountReason(absl::string_view reason) {
  rejected_.Add({{"reason", std::string(reason)}}).Increment();
}

void NodeMetrics::CountNonFinite(size_t tokens) {
  nonfinite_.Increment(static_cast<double>(tokens));
}

void NodeMetrics::SetQueueRows(uint64_t rows) { queue_rows_.Set(static_cast<double>(rows)); }

void NodeMetrics::SetWeightsBytes(uint64_t bytes, uint64_t checkpoint_bytes) {
  weights_bytes_.Set(static_cast<double>(bytes));
  checkpoint_bytes_.Set(static_cast<double>(checkpoint_bytes));
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
