// The router's metrics, but for those of central management. deploy/metrics.md is made from it.
#ifndef EXPERTMESH_ROUTER_SERVICE_METRICS_METRIC_TABLE_H_
#define EXPERTMESH_ROUTER_SERVICE_METRICS_METRIC_TABLE_H_

#include "common/telemetry/metric_info.h"

namespace expertmesh::metrics::table {

// Requests, and the tokens in them.

inline constexpr telemetry::CounterInfo kRequestsTotal = {
    "expertmesh_router_requests_total", "code", "Requests answered, by status code"};
inline constexpr telemetry::HistogramInfo kRequestDurationSeconds = {
    "expertmesh_router_request_duration_seconds", "", "From arrival to answer"};
inline constexpr telemetry::HistogramInfo kQueueDurationSeconds = {
    "expertmesh_router_queue_duration_seconds", "", "From arrival until the batch was closed"};
inline constexpr telemetry::CounterInfo kTokensTotal = {"expertmesh_router_tokens_total", "",
                                                        "Tokens accepted"};
inline constexpr telemetry::GaugeInfo kTokensInFlight = {"expertmesh_router_tokens_in_flight", "",
                                                         "Tokens accepted and not yet answered"};
inline constexpr telemetry::CounterInfo kNonfiniteTokensTotal = {
    "expertmesh_router_nonfinite_tokens_total", "",
    "Tokens received with a NaN or infinity, passed on as they are"};

// Batches, and where their assignments went. Destinations per token are transfers over planned
// tokens; tokens planned again after a loss are not counted.

inline constexpr telemetry::HistogramInfo kStageDurationSeconds = {
    "expertmesh_router_stage_duration_seconds", "stage",
    "Time of a batch in each stage: route (gather, gate), plan, experts (nodes at work), combine "
    "(sum, answer)"};
inline constexpr telemetry::HistogramInfo kBatchRequests = {
    "expertmesh_router_batch_requests", "",
    "Requests of one batch of one layer: callers whose tokens left together"};
inline constexpr telemetry::HistogramInfo kBatchTokens = {"expertmesh_router_batch_tokens", "",
                                                          "Tokens of one batch of one layer"};
inline constexpr telemetry::HistogramInfo kBatchNodes = {"expertmesh_router_batch_nodes", "",
                                                         "Nodes that one batch was sent to"};
inline constexpr telemetry::CounterInfo kPlannedTokensTotal = {
    "expertmesh_router_planned_tokens_total", "", "Tokens whose assignments were given to nodes"};
inline constexpr telemetry::CounterInfo kTokenTransfersTotal = {
    "expertmesh_router_token_transfers_total", "",
    "Pairs of a planned token and a node that it was sent to"};
inline constexpr telemetry::CounterInfo kUniformTokenTransfersTotal = {
    "expertmesh_router_uniform_token_transfers_total", "",
    "Estimate of the same, had every assignment gone to a replica at random"};
inline constexpr telemetry::CounterInfo kDroppedAssignmentsTotal = {
    "expertmesh_router_dropped_assignments_total", "",
    "Assignments whose expert had no room left (capacity)"};
inline constexpr telemetry::CounterInfo kDroppedGateMassTotal = {
    "expertmesh_router_dropped_gate_mass_total", "",
    "Gate scores of dropped assignments, added up; those of a token by softmax add up to 1"};
inline constexpr telemetry::CounterInfo kSharedExpertRowsTotal = {
    "expertmesh_router_shared_expert_rows_total", "where",
    "Tokens whose shared experts the router computed, or were given to nodes"};

// What went wrong on the way, and what that cost.

inline constexpr telemetry::CounterInfo kRetriedAssignmentsTotal = {
    "expertmesh_router_retried_assignments_total", "",
    "Assignments sent to another node after theirs was lost"};
inline constexpr telemetry::CounterInfo kRetriesTotal = {
    "expertmesh_router_retries_total", "reason",
    "Parts of batches that were given to another node: overdue, lost, full, refused, doubt (a NaN "
    "or an infinity)"};
inline constexpr telemetry::CounterInfo kRetriesWonTotal = {
    "expertmesh_router_retries_won_total", "kind",
    "Parts that another node answered and that count: retry, second_opinion (the first answer was "
    "in doubt)"};
inline constexpr telemetry::HistogramInfo kFailoverStallSeconds = {
    "expertmesh_router_failover_stall_seconds", "",
    "From the dispatch of a batch until a part of it was given to another node"};

// Load of this router, read when it is asked for. The share of changed routings is changed over
// compared tokens.

inline constexpr telemetry::CounterInfo kLayerTokensTotal = {"expertmesh_router_layer_tokens_total",
                                                             "layer", "Tokens routed"};
inline constexpr telemetry::CounterInfo kLayerAssignmentsTotal = {
    "expertmesh_router_layer_assignments_total", "layer", "Assignments (token, expert) routed"};
inline constexpr telemetry::CounterInfo kLayerComparedTokensTotal = {
    "expertmesh_router_layer_compared_tokens_total", "layer",
    "Tokens whose experts were chosen with a bias that is not the checkpoint's"};
inline constexpr telemetry::CounterInfo kLayerChangedTokensTotal = {
    "expertmesh_router_layer_changed_tokens_total", "layer",
    "Tokens that such a bias sent to other experts than the checkpoint's would"};
inline constexpr telemetry::CounterInfo kLayerNodeSecondsTotal = {
    "expertmesh_router_layer_node_seconds_total", "layer",
    "Time that nodes computed, by their clocks, of all nodes together"};
inline constexpr telemetry::CounterInfo kExpertTokensTotal = {
    "expertmesh_router_expert_tokens_total", "layer,expert",
    "Assignments of the busiest experts of late, or of all (--expert-metrics)"};

// The mesh. Bytes per token are node bytes over planned tokens.

inline constexpr telemetry::GaugeInfo kPlacementEpoch = {"expertmesh_router_placement_epoch", "",
                                                         "Version of bias and placement in use"};
inline constexpr telemetry::GaugeInfo kMissingExperts = {"expertmesh_router_missing_experts", "",
                                                         "Experts without a ready node"};
inline constexpr telemetry::GaugeInfo kNodeLookupFails = {
    "expertmesh_router_node_lookup_fails", "", "1 while a name of --nodes cannot be looked up"};
inline constexpr telemetry::GaugeInfo kNodes = {"expertmesh_router_nodes", "state",
                                                "Nodes by state of their link"};
inline constexpr telemetry::HistogramInfo kNodeCallDurationSeconds = {
    "expertmesh_router_node_call_duration_seconds", "node",
    "From sending a part of a batch to its whole answer"};
inline constexpr telemetry::CounterInfo kNodeBytesTotal = {
    "expertmesh_router_node_bytes_total", "node,direction",
    "Bytes of messages sent to the node and received from it"};

// What links lose, on the way there, where their type is narrower than the rows'. The way back is
// measured and counted by the nodes: expertmesh_expert_wire_relative_error and so on.

inline constexpr telemetry::HistogramInfo kWireRelativeError = {
    "expertmesh_router_wire_relative_error", "direction,layer",
    "Relative change of a row by its encoding, of one row in each batch"};
inline constexpr telemetry::CounterInfo kWireOverflowRowsTotal = {
    "expertmesh_router_wire_overflow_rows_total", "direction,layer",
    "Rows sent in a wider type since a finite value was beyond the link's"};

// Wrong nodes.

inline constexpr telemetry::CounterInfo kNodeFaultsTotal = {
    "expertmesh_router_node_faults_total", "node,fault",
    "Batches of a node that were not used: wrong, or overdue"};
inline constexpr telemetry::CounterInfo kNodeEjectionsTotal = {
    "expertmesh_router_node_ejections_total", "node",
    "Times a node was ejected, since its answers failed or did not come"};
inline constexpr telemetry::CounterInfo kNonfiniteAnswersTotal = {
    "expertmesh_router_nonfinite_answers_total", "verdict",
    "Answers with a NaN or an infinity for finite rows"};
inline constexpr telemetry::CounterInfo kCrossChecksTotal = {
    "expertmesh_router_cross_checks_total", "result",
    "Rows computed by two nodes to compare what they make of them"};
inline constexpr telemetry::CounterInfo kCrossCheckDisagreementsTotal = {
    "expertmesh_router_cross_check_disagreements_total", "node,other",
    "Cross-checks in which the two nodes computed different values"};
inline constexpr telemetry::CounterInfo kSumChecksTotal = {
    "expertmesh_router_sum_checks_total", "result",
    "Batches looked at for whether every assignment is in the sum exactly once"};
inline constexpr telemetry::GaugeInfo kDamagedExperts = {
    "expertmesh_router_damaged_experts", "node",
    "Experts not used on the node since their weights are wrong"};

// Traces, read when they are asked for; what is exported only where there is a collector.

inline constexpr telemetry::CounterInfo kTraceSpansTotal = {
    "expertmesh_router_trace_spans_total", "", "Spans made of batches that are kept"};
inline constexpr telemetry::CounterInfo kTraceKeptBatchesTotal = {
    "expertmesh_router_trace_kept_batches_total", "why",
    "Batches of which spans are made: sampled, or late (slow, failed or tried again)"};
inline constexpr telemetry::CounterInfo kTraceDroppedBatchesTotal = {
    "expertmesh_router_trace_dropped_batches_total", "reason",
    "Batches that were to be kept: beyond the limit a second, or since too many waited (full)"};
inline constexpr telemetry::CounterInfo kTraceExportedSpansTotal = {
    "expertmesh_router_trace_exported_spans_total", "", "Spans that the collector has taken"};
inline constexpr telemetry::CounterInfo kTraceDroppedSpansTotal = {
    "expertmesh_router_trace_dropped_spans_total", "reason", "Spans that were not exported"};
inline constexpr telemetry::CounterInfo kTraceExportsTotal = {
    "expertmesh_router_trace_exports_total", "",
    "Requests to the collector, repeated ones included"};
inline constexpr telemetry::CounterInfo kTraceExportRetriesTotal = {
    "expertmesh_router_trace_export_retries_total", "",
    "Requests to the collector that were repeated"};
inline constexpr telemetry::CounterInfo kTraceExportSecondsTotal = {
    "expertmesh_router_trace_export_seconds_total", "",
    "From requests to the collector to its answers"};

}  // namespace expertmesh::metrics::table

#endif  // EXPERTMESH_ROUTER_SERVICE_METRICS_METRIC_TABLE_H_
