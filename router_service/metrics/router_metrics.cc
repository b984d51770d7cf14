#include "router_service/metrics/router_metrics.h"

#include <algorithm>

#include "common/telemetry/metrics.h"

namespace expertmesh::metrics {
namespace {

// With labels: each combination of their values is a series.
prometheus::Family<prometheus::Counter>& Counters(prometheus::Registry& registry, const char* name,
                                                  const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Gauge>& Gauges(prometheus::Registry& registry, const char* name,
                                              const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

prometheus::Counter& Counter(prometheus::Registry& registry, const char* name, const char* help) {
  return Counters(registry, name, help).Add({});
}

prometheus::Gauge& Gauge(prometheus::Registry& registry, const char* name, const char* help) {
  return Gauges(registry, name, help).Add({});
}

prometheus::Histogram& Histogram(prometheus::Registry& registry, const char* name, const char* help,
                                 const prometheus::Histogram::BucketBoundaries& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, bounds);
}

}  // namespace

RouterMetrics::RouterMetrics(prometheus::Registry& registry)
    : retried_assignments(Counter(registry, "expertmesh_router_retried_assignments_total",
                                  "Assignments sent to another node after theirs was lost")),
      dropped_assignments(Counter(registry, "expertmesh_router_dropped_assignments_total",
                                  "Assignments whose expert had no room left (capacity)")),
      nonfinite_tokens(Counter(registry, "expertmesh_router_nonfinite_tokens_total",
                               "Tokens received with a NaN or infinity, passed on as they are")),
      tokens(Counter(registry, "expertmesh_router_tokens_total", "Tokens accepted")),
      planned_tokens(Counter(registry, "expertmesh_router_planned_tokens_total",
                             "Tokens whose assignments were given to nodes")),
      token_transfers(Counter(registry, "expertmesh_router_token_transfers_total",
                              "Pairs of a planned token and a node that it was sent to")),
      uniform_token_transfers(
          Counter(registry, "expertmesh_router_uniform_token_transfers_total",
                  "Estimate of the same, had every assignment gone to a replica at random")),
      request_seconds(Histogram(registry, "expertmesh_router_request_duration_seconds",
                                "From arrival to answer", telemetry::DurationBuckets())),
      queue_seconds(Histogram(registry, "expertmesh_router_queue_duration_seconds",
                              "From arrival until the batch was closed",
                              telemetry::DurationBuckets())),
      batch_tokens(Histogram(registry, "expertmesh_router_batch_tokens",
                             "Tokens of one batch of one layer", telemetry::RowBuckets())),
      batch_nodes(Histogram(registry, "expertmesh_router_batch_nodes",
                            "Nodes that one batch was sent to", telemetry::RowBuckets())),
      tokens_in_flight(Gauge(registry, "expertmesh_router_tokens_in_flight",
                             "Tokens accepted and not yet answered")),
      epoch(Gauge(registry, "expertmesh_router_placement_epoch",
                  "Version of bias and placement in use")),
      missing_experts(
          Gauge(registry, "expertmesh_router_missing_experts", "Experts without a ready node")),
      nodes(Gauges(registry, "expertmesh_router_nodes", "Nodes by state of their link")),
      hidden_states_error(registry, "expertmesh_router_wire_relative_error",
                          "Relative change of a row by its encoding, of one row in each batch",
                          {{"direction", "hidden_states"}}, telemetry::RelativeErrorBuckets()),
      hidden_states_overflow(registry, "expertmesh_router_wire_overflow_rows_total",
                             "hidden_states"),
      node_faults_(Counters(registry, "expertmesh_router_node_faults_total",
                            "Answers of a node that were not used since they were wrong")),
      nonfinite_answers_(Counters(registry, "expertmesh_router_nonfinite_answers_total",
                                  "Answers with a NaN or an infinity for finite rows")),
      cross_checks_(Counters(registry, "expertmesh_router_cross_checks_total",
                             "Rows computed by two nodes to compare what they make of them")),
      disagreements_(Counters(registry, "expertmesh_router_cross_check_disagreements_total",
                              "Cross-checks in which the two nodes computed different values")),
      damaged_experts_(Gauges(registry, "expertmesh_router_damaged_experts",
                              "Experts not used on the node since their weights are wrong")),
      requests_(Counters(registry, "expertmesh_router_requests_total",
                         "Requests answered, by status code")) {}

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

void RouterMetrics::CountNodeFault(const std::string& address, const std::string& fault) {
  node_faults_.Add({{"fault", fault}, {"node", address}}).Increment();
}

void RouterMetrics::CountCrossCheck(bool agree) {
  cross_checks_.Add({{"result", agree ? "agree" : "disagree"}}).Increment();
}

void RouterMetrics::CountDisagreement(const std::string& node, const std::string& other) {
  disagreements_.Add({{"node", std::min(node, other)}, {"other", std::max(node, other)}})
      .Increment();
}

void RouterMetrics::SetDamagedExperts(const std::string& address, uint64_t count) {
  damaged_experts_.Add({{"node", address}}).Set(static_cast<double>(count));
}

void RouterMetrics::ForgetNode(const std::string& address) {
  damaged_experts_.Remove(&damaged_experts_.Add({{"node", address}}));
}

void RouterMetrics::CountNonFiniteAnswer(const std::string& verdict) {
  nonfinite_answers_.Add({{"verdict", verdict}}).Increment();
}

}  // namespace expertmesh::metrics
