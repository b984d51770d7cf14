// The router's metrics of central management. deploy/metrics.md is made from it.
#ifndef EXPERTMESH_ROUTER_SERVICE_METRICS_BALANCE_METRIC_TABLE_H_
#define EXPERTMESH_ROUTER_SERVICE_METRICS_BALANCE_METRIC_TABLE_H_

#include "common/telemetry/metric_info.h"

namespace expertmesh::metrics::table {

// Who decides, and whether that works.

inline constexpr telemetry::GaugeInfo kBalanceAlive = {
    "expertmesh_router_balance_alive", "",
    "1 while central management works; 0: Control.GetBalance says what is wrong"};
inline constexpr telemetry::GaugeInfo kBalanceAuthority = {
    "expertmesh_router_balance_authority", "", "1: this router decides; 0: it follows"};
inline constexpr telemetry::GaugeInfo kBalanceTerm = {"expertmesh_router_balance_term", "",
                                                      "Grows whenever an authority starts"};
inline constexpr telemetry::GaugeInfo kBalanceChangeAgeSeconds = {
    "expertmesh_router_balance_change_age_seconds", "",
    "Since bias or placement changed last by a decision"};
inline constexpr telemetry::GaugeInfo kBalanceTickAgeSeconds = {
    "expertmesh_router_balance_tick_age_seconds", "",
    "Since load was looked at last; of a follower: since its authority was heard last"};
inline constexpr telemetry::GaugeInfo kBalanceRouters = {"expertmesh_router_balance_routers", "",
                                                         "Routers whose counts are known and new"};
inline constexpr telemetry::GaugeInfo kBalanceOldestReportAgeSeconds = {
    "expertmesh_router_balance_oldest_report_age_seconds", "",
    "Since the report of the router that is silent for longest"};

// Placement.

inline constexpr telemetry::GaugeInfo kPlacementMoving = {"expertmesh_router_placement_moving",
                                                          "phase", "What moves of copies do now"};
inline constexpr telemetry::GaugeInfo kPlacementMoveBytes = {
    "expertmesh_router_placement_move_bytes", "", "Bytes loaded by the move, or the last"};
inline constexpr telemetry::GaugeInfo kPlacementMovesCompleted = {
    "expertmesh_router_placement_moves_completed", "", "Moves that were completed"};
inline constexpr telemetry::GaugeInfo kPlacementMovesFailed = {
    "expertmesh_router_placement_moves_failed", "", "Moves that failed and were undone"};
inline constexpr telemetry::GaugeInfo kPlacementRepairsCompleted = {
    "expertmesh_router_placement_repairs_completed", "",
    "Nodes brought back to the plan, such as after a restart"};
inline constexpr telemetry::GaugeInfo kPlacementPlanAgeSeconds = {
    "expertmesh_router_placement_plan_age_seconds", "",
    "Since the planner was asked last; -1: never"};
inline constexpr telemetry::GaugeInfo kPlacementMoveAgeSeconds = {
    "expertmesh_router_placement_move_age_seconds", "",
    "Since a move was completed last; -1: never"};
inline constexpr telemetry::GaugeInfo kPlacementFullestOverMean = {
    "expertmesh_router_placement_fullest_over_mean", "",
    "Expected fullest node over the mean of the worst layer, as copies were when planned last"};

// How evenly experts are used: of the last 10 s and of all routers that report here, but for the
// measures of scores, which are of a sample of this router's rows.

inline constexpr telemetry::GaugeInfo kLoadMaxViolation = {
    "expertmesh_router_load_max_violation", "layer", "MaxVio: (largest load - mean) / mean"};
inline constexpr telemetry::GaugeInfo kLoadBatchMaxViolation = {
    "expertmesh_router_load_batch_max_violation", "layer",
    "The same of a batch, the mean over this router's batches since it started"};
inline constexpr telemetry::GaugeInfo kLoadVariation = {"expertmesh_router_load_variation", "layer",
                                                        "Coefficient of variation of the load"};
inline constexpr telemetry::GaugeInfo kLoadEntropy = {
    "expertmesh_router_load_entropy", "layer",
    "Entropy of the load: 1 when balanced, 0 when one expert gets all"};
inline constexpr telemetry::GaugeInfo kLoadMeanSquaredShare = {
    "expertmesh_router_load_mean_squared_share", "layer", "Mean of squared shares of the load"};
inline constexpr telemetry::GaugeInfo kDeadExperts = {"expertmesh_router_dead_experts", "layer",
                                                      "Experts without any assignment"};
inline constexpr telemetry::GaugeInfo kLayerCollapsed = {
    "expertmesh_router_layer_collapsed", "layer",
    "1 when experts are dead, or a few get nearly all assignments"};
inline constexpr telemetry::GaugeInfo kChangedRoutingShare = {
    "expertmesh_router_changed_routing_share", "layer",
    "Share of tokens that a bias sends to other experts than the checkpoint's would"};
inline constexpr telemetry::GaugeInfo kBiasDistance = {
    "expertmesh_router_bias_distance", "layer",
    "Largest distance of an expert's bias to the checkpoint's"};
inline constexpr telemetry::GaugeInfo kSwitchLoss = {
    "expertmesh_router_switch_loss", "layer",
    "Switch Transformer's load balancing loss, all slots counted"};
inline constexpr telemetry::GaugeInfo kGshardLoss = {"expertmesh_router_gshard_loss", "layer",
                                                     "GShard's load balancing loss"};
inline constexpr telemetry::GaugeInfo kMegatronLoss = {"expertmesh_router_megatron_loss", "layer",
                                                       "Megatron-Core's auxiliary loss"};
inline constexpr telemetry::GaugeInfo kSequenceLoss = {
    "expertmesh_router_sequence_loss", "layer",
    "DeepSeek-V3's sequence-wise loss, alpha 1e-4, of the sample"};
inline constexpr telemetry::GaugeInfo kImportanceLoss = {
    "expertmesh_router_importance_loss", "layer",
    "Squared coefficient of variation of the experts' weights"};
inline constexpr telemetry::GaugeInfo kZLoss = {"expertmesh_router_z_loss", "layer",
                                                "Mean of logsumexp(logits)^2"};
inline constexpr telemetry::GaugeInfo kSecondPlaceLoss = {
    "expertmesh_router_second_place_loss", "layer",
    "Mesh TensorFlow's load balancing loss of second choices"};

}  // namespace expertmesh::metrics::table

#endif  // EXPERTMESH_ROUTER_SERVICE_METRICS_BALANCE_METRIC_TABLE_H_
