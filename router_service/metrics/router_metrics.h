// The router's metrics, registered once; children are safe to touch from any thread.
#ifndef EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_
#define EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/telemetry/exemplars.h"
#include "common/telemetry/histogram.h"
#include "common/telemetry/layer_histograms.h"
#include "common/telemetry/metrics.h"
#include "common/telemetry/wire_overflow.h"
#include "router_service/metrics/metric_table.h"

namespace expertmesh::metrics {

// Each member is an entry of the table, where name, help and labels stand.
class RouterMetrics {
  prometheus::Registry& registry_;  // Before the members that are registered in it.
  prometheus::Family<prometheus::Histogram>& stages_ =
      telemetry::RegisterHistograms(registry_, table::kStageDurationSeconds);

 public:
  // `registry` must outlive the metrics.
  explicit RouterMetrics(prometheus::Registry& registry) : registry_(registry) { AddSeries(); }

  // Traces of what was observed, for GET /metrics.
  telemetry::Exemplars exemplars;

  // Requests, and the tokens in them.

  prometheus::Counter& tokens = telemetry::RegisterCounter(registry_, table::kTokensTotal);
  prometheus::Gauge& tokens_in_flight = telemetry::RegisterGauge(registry_, table::kTokensInFlight);
  prometheus::Counter& nonfinite_tokens =
      telemetry::RegisterCounter(registry_, table::kNonfiniteTokensTotal);
  telemetry::TracedHistogram request_seconds = telemetry::RegisterTracedHistogram(
      registry_, &exemplars, table::kRequestDurationSeconds, telemetry::DurationBuckets());
  telemetry::Histogram queue_seconds = telemetry::RegisterHistogram(
      registry_, table::kQueueDurationSeconds, telemetry::DurationBuckets());
  void CountRequest(absl::StatusCode code);

  // Stages of a batch; its queue is above.

  telemetry::TracedHistogram route_seconds = Stage("route");
  telemetry::TracedHistogram plan_seconds = Stage("plan");
  telemetry::TracedHistogram experts_seconds = Stage("experts");
  telemetry::TracedHistogram combine_seconds = Stage("combine");

  // Batches, and where their assignments went. Destinations per token are transfers over planned
  // tokens; tokens planned again after a loss are not counted.

  telemetry::Histogram batch_requests =
      telemetry::RegisterHistogram(registry_, table::kBatchRequests, telemetry::RowBuckets());
  telemetry::Histogram batch_tokens =
      telemetry::RegisterHistogram(registry_, table::kBatchTokens, telemetry::RowBuckets());
  telemetry::Histogram batch_nodes =
      telemetry::RegisterHistogram(registry_, table::kBatchNodes, telemetry::RowBuckets());
  prometheus::Counter& planned_tokens =
      telemetry::RegisterCounter(registry_, table::kPlannedTokensTotal);
  prometheus::Counter& token_transfers =
      telemetry::RegisterCounter(registry_, table::kTokenTransfersTotal);
  prometheus::Counter& uniform_token_transfers =
      telemetry::RegisterCounter(registry_, table::kUniformTokenTransfersTotal);
  prometheus::Counter& retried_assignments =
      telemetry::RegisterCounter(registry_, table::kRetriedAssignmentsTotal);
  prometheus::Counter& dropped_assignments =
      telemetry::RegisterCounter(registry_, table::kDroppedAssignmentsTotal);
  prometheus::Counter& dropped_gate_mass =
      telemetry::RegisterCounter(registry_, table::kDroppedGateMassTotal);

  // `where`: "router" or "nodes". Rows that the router computes since a node was lost are counted
  // at both.
  void CountSharedRows(const std::string& where, uint64_t rows) {
    (where == "router" ? shared_rows_router_ : shared_rows_nodes_)
        .Increment(static_cast<double>(rows));
  }

  // What was lost on the way.

  enum class RetryReason { kOverdue, kLost, kFull, kRefused, kDoubt };
  // A part of a batch is given to another node, `stall` after the batch was dispatched.
  void CountRetry(RetryReason reason, absl::Duration stall) {
    retries_of_[static_cast<size_t>(reason)]->Increment();
    failover_stall_.Observe(stall);
  }
  // Another node answered such a part. `second_opinion`: the answer before was in doubt.
  void CountRetryWon(bool second_opinion) {
    (second_opinion ? second_opinions_won_ : retries_won_).Increment();
  }

  // The mesh.

  // Series of one node. Valid until they are given back.
  struct NodeSeries {
    telemetry::TracedHistogram call_seconds;
    prometheus::Counter& sent_bytes;
    prometheus::Counter& received_bytes;
  };
  // The same for all who ask for one address; they go away with the last, and so does what was
  // counted of the node's `faults` (their names) and ejections.
  NodeSeries TakeNode(const std::string& address, const std::vector<std::string>& faults);
  void GiveBackNode(const std::string& address, const std::vector<std::string>& faults);

  prometheus::Gauge& epoch = telemetry::RegisterGauge(registry_, table::kPlacementEpoch);
  prometheus::Gauge& missing_experts = telemetry::RegisterGauge(registry_, table::kMissingExperts);
  prometheus::Gauge& node_lookup_fails =
      telemetry::RegisterGauge(registry_, table::kNodeLookupFails);
  prometheus::Family<prometheus::Gauge>& nodes =
      telemetry::RegisterGauges(registry_, table::kNodes);

  // What links lose, on the way there, where their type is narrower than the rows'. The way back is
  // measured and counted by the nodes: expertmesh_expert_wire_relative_error and so on.

  // {layer,direction="hidden_states"}: EncodingError of one row of each batch to a node.
  telemetry::LayerHistograms hidden_states_error{registry_,
                                                 table::kWireRelativeError,
                                                 {{"direction", "hidden_states"}},
                                                 telemetry::RelativeErrorBuckets()};
  // {layer,direction="hidden_states"}: rows beyond the range of the link's type.
  telemetry::WireOverflow hidden_states_overflow{registry_, table::kWireOverflowRowsTotal,
                                                 "hidden_states"};

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
  // Series of what has not happened yet: a rate does not see a first time that brings its series.
  void AddSeries();
  telemetry::TracedHistogram Stage(const char* stage);

  prometheus::Family<prometheus::Counter>& requests_ =
      telemetry::RegisterCounters(registry_, table::kRequestsTotal);
  // By code, once it has been seen.
  std::array<std::atomic<prometheus::Counter*>, 17> requests_of_code_{};
  prometheus::Family<prometheus::Counter>& retries_ =
      telemetry::RegisterCounters(registry_, table::kRetriesTotal);
  // By reason.
  const std::array<prometheus::Counter*, 5> retries_of_{
      &retries_.Add({{"reason", "overdue"}}), &retries_.Add({{"reason", "lost"}}),
      &retries_.Add({{"reason", "full"}}), &retries_.Add({{"reason", "refused"}}),
      &retries_.Add({{"reason", "doubt"}})};
  prometheus::Family<prometheus::Counter>& won_ =
      telemetry::RegisterCounters(registry_, table::kRetriesWonTotal);
  prometheus::Counter& retries_won_ = won_.Add({{"kind", "retry"}});
  prometheus::Counter& second_opinions_won_ = won_.Add({{"kind", "second_opinion"}});
  telemetry::Histogram failover_stall_ = telemetry::RegisterHistogram(
      registry_, table::kFailoverStallSeconds, telemetry::DurationBuckets());
  prometheus::Family<prometheus::Histogram>& node_calls_ =
      telemetry::RegisterHistograms(registry_, table::kNodeCallDurationSeconds);
  prometheus::Family<prometheus::Counter>& node_bytes_ =
      telemetry::RegisterCounters(registry_, table::kNodeBytesTotal);
  absl::Mutex nodes_mutex_;
  // By address: how many use its series.
  std::map<std::string, int> nodes_in_use_ ABSL_GUARDED_BY(nodes_mutex_);
  prometheus::Family<prometheus::Counter>& shared_rows_ =
      telemetry::RegisterCounters(registry_, table::kSharedExpertRowsTotal);
  prometheus::Counter& shared_rows_router_ = shared_rows_.Add({{"where", "router"}});
  prometheus::Counter& shared_rows_nodes_ = shared_rows_.Add({{"where", "nodes"}});
  prometheus::Family<prometheus::Counter>& node_faults_ =
      telemetry::RegisterCounters(registry_, table::kNodeFaultsTotal);
  prometheus::Family<prometheus::Counter>& node_ejections_ =
      telemetry::RegisterCounters(registry_, table::kNodeEjectionsTotal);
  prometheus::Family<prometheus::Counter>& nonfinite_answers_ =
      telemetry::RegisterCounters(registry_, table::kNonfiniteAnswersTotal);
  prometheus::Family<prometheus::Counter>& cross_checks_ =
      telemetry::RegisterCounters(registry_, table::kCrossChecksTotal);
  prometheus::Family<prometheus::Counter>& sum_checks_ =
      telemetry::RegisterCounters(registry_, table::kSumChecksTotal);
  prometheus::Family<prometheus::Counter>& disagreements_ =
      telemetry::RegisterCounters(registry_, table::kCrossCheckDisagreementsTotal);
  prometheus::Family<prometheus::Gauge>& damaged_experts_ =
      telemetry::RegisterGauges(registry_, table::kDamagedExperts);
};

}  // namespace expertmesh::metrics

#endif  // EXPERTMESH_ROUTER_SERVICE_METRICS_ROUTER_METRICS_H_
