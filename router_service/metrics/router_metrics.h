// The router's metrics, registered once; children are safe to touch from any thread.
#ifndef EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_
#define EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/telemetry/layer_histograms.h"
#include "common/telemetry/metrics.h"
#include "common/telemetry/wire_overflow.h"

namespace expertmesh::metrics {

// A metric is declared by its member and nowhere else: name, help and labels stand there.
class RouterMetrics {
  prometheus::Registry& registry_;  // Before the members that are registered in it.

 public:
  // `registry` must outlive the metrics.
  explicit RouterMetrics(prometheus::Registry& registry) : registry_(registry) {}

  // Requests, and the tokens in them.

  prometheus::Counter& tokens =
      telemetry::RegisterCounter(registry_, "expertmesh_router_tokens_total", "Tokens accepted");
  prometheus::Gauge& tokens_in_flight = telemetry::RegisterGauge(
      registry_, "expertmesh_router_tokens_in_flight", "Tokens accepted and not yet answered");
  prometheus::Counter& nonfinite_tokens =
      telemetry::RegisterCounter(registry_, "expertmesh_router_nonfinite_tokens_total",
                                 "Tokens received with a NaN or infinity, passed on as they are");
  prometheus::Histogram& request_seconds =
      telemetry::RegisterHistogram(registry_, "expertmesh_router_request_duration_seconds",
                                   "From arrival to answer", telemetry::DurationBuckets());
  prometheus::Histogram& queue_seconds = telemetry::RegisterHistogram(
      registry_, "expertmesh_router_queue_duration_seconds",
      "From arrival until the batch was closed", telemetry::DurationBuckets());
  void CountRequest(absl::StatusCode code);

  // Batches, and where their assignments went. Destinations per token are transfers over planned
  // tokens; tokens planned again after a loss are not counted.

  prometheus::Histogram& batch_tokens =
      telemetry::RegisterHistogram(registry_, "expertmesh_router_batch_tokens",
                                   "Tokens of one batch of one layer", telemetry::RowBuckets());
  prometheus::Histogram& batch_nodes =
      telemetry::RegisterHistogram(registry_, "expertmesh_router_batch_nodes",
                                   "Nodes that one batch was sent to", telemetry::RowBuckets());
  prometheus::Counter& planned_tokens =
      telemetry::RegisterCounter(registry_, "expertmesh_router_planned_tokens_total",
                                 "Tokens whose assignments were given to nodes");
  prometheus::Counter& token_transfers =
      telemetry::RegisterCounter(registry_, "expertmesh_router_token_transfers_total",
                                 "Pairs of a planned token and a node that it was sent to");
  prometheus::Counter& uniform_token_transfers = telemetry::RegisterCounter(
      registry_, "expertmesh_router_uniform_token_transfers_total",
      "Estimate of the same, had every assignment gone to a replica at random");
  prometheus::Counter& retried_assignments =
      telemetry::RegisterCounter(registry_, "expertmesh_router_retried_assignments_total",
                                 "Assignments sent to another node after theirs was lost");
  prometheus::Counter& dropped_assignments =
      telemetry::RegisterCounter(registry_, "expertmesh_router_dropped_assignments_total",
                                 "Assignments whose expert had no room left (capacity)");

  // `where`: "router" or "nodes". Rows that the router computes since a node was lost are counted
  // at both.
  void CountSharedRows(const std::string& where, uint64_t rows) {
    (where == "router" ? shared_rows_router_ : shared_rows_nodes_)
        .Increment(static_cast<double>(rows));
  }

  // The mesh.

  prometheus::Gauge& epoch = telemetry::RegisterGauge(
      registry_, "expertmesh_router_placement_epoch", "Version of bias and placement in use");
  prometheus::Gauge& missing_experts = telemetry::RegisterGauge(
      registry_, "expertmesh_router_missing_experts", "Experts without a ready node");
  prometheus::Gauge& node_lookup_fails =
      telemetry::RegisterGauge(registry_, "expertmesh_router_node_lookup_fails",
                               "1 while a name of --nodes cannot be looked up");
  // {state}.
  prometheus::Family<prometheus::Gauge>& nodes = telemetry::RegisterGauges(
      registry_, "expertmesh_router_nodes", "Nodes by state of their link");

  // What links lose, on the way there, where their type is narrower than the rows'. The way back is
  // measured and counted by the nodes: expertmesh_expert_wire_relative_error and so on.

  // {layer,direction="hidden_states"}: EncodingError of one row of each batch to a node.
  telemetry::LayerHistograms hidden_states_error{
      registry_,
      "expertmesh_router_wire_relative_error",
      "Relative change of a row by its encoding, of one row in each batch",
      {{"direction", "hidden_states"}},
      telemetry::RelativeErrorBuckets()};
  // {layer,direction="hidden_states"}: rows beyond the range of the link's type.
  telemetry::WireOverflow hidden_states_overflow{
      registry_, "expertmesh_router_wire_overflow_rows_total", "hidden_states"};

  // Wrong nodes.

  // `fault` as NameOf(mesh::NodeFault) says it.
  void CountNodeFault(const std::string& address, const std::string& fault) {
    node_faults_.Add({{"fault", fault}, {"node", address}}).Increment();
  }
  void CountEjection(const std::string& address) {
    node_ejections_.Add({{"node", address}}).Increment();
  }
  // "fault" (a replica was finite), "confirmed" (replicas had the same) or "unconfirmed" (no other
  // node could be asked).
  void CountNonFiniteAnswer(const std::string& verdict) {
    nonfinite_answers_.Add({{"verdict", verdict}}).Increment();
  }
  void CountCrossCheck(bool agree) {
    cross_checks_.Add({{"result", agree ? "agree" : "disagree"}}).Increment();
  }
  void CountSumCheck(bool right) {
    sum_checks_.Add({{"result", right ? "right" : "wrong"}}).Increment();
  }
  // By pair, in order of addresses.
  void CountDisagreement(const std::string& node, const std::string& other) {
    disagreements_.Add({{"node", std::min(node, other)}, {"other", std::max(node, other)}})
        .Increment();
  }
  // Experts that the node holds and that are not used there, since their weights are not the
  // model's.
  void SetDamagedExperts(const std::string& address, uint64_t count) {
    damaged_experts_.Add({{"node", address}}).Set(static_cast<double>(count));
  }
  // The node is gone: takes its gauge away. Not while SetDamagedExperts runs.
  void ForgetNode(const std::string& address) {
    damaged_experts_.Remove(&damaged_experts_.Add({{"node", address}}));
  }

 private:
  // {code}.
  prometheus::Family<prometheus::Counter>& requests_ = telemetry::RegisterCounters(
      registry_, "expertmesh_router_requests_total", "Requests answered, by status code");
  // By code, once it has been seen.
  std::array<std::atomic<prometheus::Counter*>, 17> requests_of_code_{};
  // {where}.
  prometheus::Family<prometheus::Counter>& shared_rows_ = telemetry::RegisterCounters(
      registry_, "expertmesh_router_shared_expert_rows_total",
      "Tokens whose shared experts the router computed, or were given to nodes");
  prometheus::Counter& shared_rows_router_ = shared_rows_.Add({{"where", "router"}});
  prometheus::Counter& shared_rows_nodes_ = shared_rows_.Add({{"where", "nodes"}});
  // {node,fault}.
  prometheus::Family<prometheus::Counter>& node_faults_ =
      telemetry::RegisterCounters(registry_, "expertmesh_router_node_faults_total",
                                  "Batches of a node that were not used: wrong, or overdue");
  // {node}.
  prometheus::Family<prometheus::Counter>& node_ejections_ = telemetry::RegisterCounters(
      registry_, "expertmesh_router_node_ejections_total",
      "Times a node was ejected, since its answers failed or did not come");
  // {verdict}.
  prometheus::Family<prometheus::Counter>& nonfinite_answers_ =
      telemetry::RegisterCounters(registry_, "expertmesh_router_nonfinite_answers_total",
                                  "Answers with a NaN or an infinity for finite rows");
  // {result}.
  prometheus::Family<prometheus::Counter>& cross_checks_ =
      telemetry::RegisterCounters(registry_, "expertmesh_router_cross_checks_total",
                                  "Rows computed by two nodes to compare what they make of them");
  // {result}.
  prometheus::Family<prometheus::Counter>& sum_checks_ = telemetry::RegisterCounters(
      registry_, "expertmesh_router_sum_checks_total",
      "Batches looked at for whether every assignment is in the sum exactly once");
  // {node,other}.
  prometheus::Family<prometheus::Counter>& disagreements_ =
      telemetry::RegisterCounters(registry_, "expertmesh_router_cross_check_disagreements_total",
                                  "Cross-checks in which the two nodes computed different values");
  // {node}.
  prometheus::Family<prometheus::Gauge>& damaged_experts_ =
      telemetry::RegisterGauges(registry_, "expertmesh_router_damaged_experts",
                                "Experts not used on the node since their weights are wrong");
};

}  // namespace expertmesh::metrics

#endif  // EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_
