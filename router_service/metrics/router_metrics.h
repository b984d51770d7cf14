// The router's metrics, registered once; children are safe to touch from any thread.
#ifndef EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_
#define EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "common/telemetry/layer_histograms.h"
#include "common/telemetry/wire_overflow.h"

namespace expertmesh::metrics {

class RouterMetrics {
 public:
  // `registry` must outlive the metrics.
  explicit RouterMetrics(prometheus::Registry& registry);

  // expertmesh_router_requests_total{code}.
  void CountRequest(absl::StatusCode code);

  // expertmesh_router_retried_assignments_total: assignments sent to another node after one was
  // lost.
  prometheus::Counter& retried_assignments;
  // expertmesh_router_dropped_assignments_total: assignments whose expert had no room left
  // (capacity).
  prometheus::Counter& dropped_assignments;
  prometheus::Counter& nonfinite_tokens;
  prometheus::Counter& tokens;
  // Destinations per token are transfers over planned tokens; tokens planned again after a loss are
  // not counted.
  prometheus::Counter& planned_tokens;
  prometheus::Counter& token_transfers;
  prometheus::Counter& uniform_token_transfers;
  prometheus::Histogram& request_seconds;
  prometheus::Histogram& queue_seconds;
  prometheus::Histogram& batch_tokens;
  prometheus::Histogram& batch_nodes;
  prometheus::Gauge& tokens_in_flight;
  prometheus::Gauge& epoch;
  prometheus::Gauge& missing_experts;
  prometheus::Family<prometheus::Gauge>& nodes;
  // expertmesh_router_wire_relative_error{layer,direction="hidden_states"}: EncodingError of one
  // row of each batch to a node, where the link's type is narrower than the rows'. The way back is
  // measured where it is encoded: expertmesh_expert_wire_relative_error.
  telemetry::LayerHistograms hidden_states_error;
  // expertmesh_router_wire_overflow_rows_total{layer,direction="hidden_states"}: rows beyond the
  // range of the link's type. The way back is counted by the nodes.
  telemetry::WireOverflow hidden_states_overflow;

  // expertmesh_router_node_faults_total{node,fault}: answers of a node that were not used. `fault`
  // is "nonfinite" (a NaN or an infinity that a replica did not have) or "checksum".
  void CountNodeFault(const std::string& address, const std::string& fault);
  // expertmesh_router_nonfinite_answers_total{verdict}: answers with a NaN or an infinity for
  // finite rows: "fault" (a replica was finite), "confirmed" (replicas had the same) or
  // "unconfirmed" (no other node could be asked).
  void CountNonFiniteAnswer(const std::string& verdict);
  // expertmesh_router_cross_checks_total{result}: "agree" or "disagree".
  void CountCrossCheck(bool agree);
  // expertmesh_router_cross_check_disagreements_total{node,other}: by pair, in order of addresses.
  void CountDisagreement(const std::string& node, const std::string& other);
  // expertmesh_router_damaged_experts{node}: experts that the node holds and that are not used
  // there, since their weights are not the model's.
  void SetDamagedExperts(const std::string& address, uint64_t count);
  // The node is gone: takes its gauge away. Not while SetDamagedExperts runs.
  void ForgetNode(const std::string& address);

 private:
  prometheus::Family<prometheus::Counter>& node_faults_;
  prometheus::Family<prometheus::Counter>& nonfinite_answers_;
  prometheus::Family<prometheus::Counter>& cross_checks_;
  prometheus::Family<prometheus::Counter>& disagreements_;
  prometheus::Family<prometheus::Gauge>& damaged_experts_;
  prometheus::Family<prometheus::Counter>& requests_;
  // By code, once it has been seen.
  std::array<std::atomic<prometheus::Counter*>, 17> requests_of_code_{};
};

}  // namespace expertmesh::metrics

#endif  // EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_
