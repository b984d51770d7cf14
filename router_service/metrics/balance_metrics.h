// What shows how evenly experts are used, and that central management is alive.
#ifndef EXPERTMESH_ROUTER_SERVICE_METRICS_BALANCE_METRICS_H_
#define EXPERTMESH_ROUTER_SERVICE_METRICS_BALANCE_METRICS_H_

#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <string>

#include "common/telemetry/metrics.h"
#include "expertmesh/v1/balance.pb.h"
#include "expertmesh/v1/placement.pb.h"

namespace expertmesh::metrics {

// A metric is declared by its member and nowhere else. Those of a layer are of the last 10 s and of
// all routers that report here, but for the measures of scores, which are of a sample of this
// router's rows.
class BalanceMetrics {
  prometheus::Registry& registry_;  // Before the members that are registered in it.

 public:
  // `registry` must outlive the metrics.
  explicit BalanceMetrics(prometheus::Registry& registry) : registry_(registry) {}

  // One call at a time.
  void Set(const v1::Balance& balance, const v1::PlacementState& placement);

 private:
  using Family = prometheus::Family<prometheus::Gauge>;

  Family& Layers(const char* name, const char* help) {
    return telemetry::RegisterGauges(registry_, name, help);
  }
  void SetLayer(const v1::LayerBalance& layer);
  void SetPlacement(const v1::PlacementState& placement);

  prometheus::Gauge& alive_ = telemetry::RegisterGauge(
      registry_, "expertmesh_router_balance_alive",
      "1 while central management works; 0: Control.GetBalance says what is wrong");
  prometheus::Gauge& authority_ = telemetry::RegisterGauge(
      registry_, "expertmesh_router_balance_authority", "1: this router decides; 0: it follows");
  prometheus::Gauge& term_ = telemetry::RegisterGauge(registry_, "expertmesh_router_balance_term",
                                                      "Grows whenever an authority starts");
  prometheus::Gauge& change_age_ =
      telemetry::RegisterGauge(registry_, "expertmesh_router_balance_change_age_seconds",
                               "Since bias or placement changed last by a decision");
  prometheus::Gauge& tick_age_ = telemetry::RegisterGauge(
      registry_, "expertmesh_router_balance_tick_age_seconds",
      "Since load was looked at last; of a follower: since its authority was heard last");
  prometheus::Gauge& routers_ = telemetry::RegisterGauge(
      registry_, "expertmesh_router_balance_routers", "Routers whose counts are known and new");
  prometheus::Gauge& report_age_ =
      telemetry::RegisterGauge(registry_, "expertmesh_router_balance_oldest_report_age_seconds",
                               "Since the report of the router that is silent for longest");

  // {layer}.
  Family& max_violation_ =
      Layers("expertmesh_router_load_max_violation", "MaxVio: (largest load - mean) / mean");
  Family& batch_max_violation_ =
      Layers("expertmesh_router_load_batch_max_violation",
             "The same of a batch, the mean over this router's batches since it started");
  Family& variation_ =
      Layers("expertmesh_router_load_variation", "Coefficient of variation of the load");
  Family& entropy_ = Layers("expertmesh_router_load_entropy",
                            "Entropy of the load: 1 when balanced, 0 when one expert gets all");
  Family& mean_squared_share_ =
      Layers("expertmesh_router_load_mean_squared_share", "Mean of squared shares of the load");
  Family& dead_experts_ =
      Layers("expertmesh_router_dead_experts", "Experts without any assignment");
  Family& collapsed_ = Layers("expertmesh_router_layer_collapsed",
                              "1 when experts are dead, or a few get nearly all assignments");
  Family& changed_share_ =
      Layers("expertmesh_router_changed_routing_share",
             "Share of tokens that a bias sends to other experts than the checkpoint's would");
  Family& bias_distance_ = Layers("expertmesh_router_bias_distance",
                                  "Largest distance of an expert's bias to the checkpoint's");
  Family& switch_loss_ = Layers("expertmesh_router_switch_loss",
                                "Switch Transformer's load balancing loss, all slots counted");
  Family& gshard_loss_ = Layers("expertmesh_router_gshard_loss", "GShard's load balancing loss");
  Family& megatron_loss_ =
      Layers("expertmesh_router_megatron_loss", "Megatron-Core's auxiliary loss");
  Family& sequence_loss_ = Layers("expertmesh_router_sequence_loss",
                                  "DeepSeek-V3's sequence-wise loss, alpha 1e-4, of the sample");
  Family& importance_loss_ = Layers("expertmesh_router_importance_loss",
                                    "Squared coefficient of variation of the experts' weights");
  Family& z_loss_ = Layers("expertmesh_router_z_loss", "Mean of logsumexp(logits)^2");
  Family& second_place_loss_ = Layers("expertmesh_router_second_place_loss",
                                      "Mesh TensorFlow's load balancing loss of second choices");

  // {phase}: 1 for the one that it is in.
  Family& move_phase_ = telemetry::RegisterGauges(registry_, "expertmesh_router_placement_moving",
                                                  "What moves of copies do now");
  prometheus::Gauge& move_bytes_ = telemetry::RegisterGauge(
      registry_, "expertmesh_router_placement_move_bytes", "Bytes loaded by the move, or the last");
  prometheus::Gauge& moves_completed_ = telemetry::RegisterGauge(
      registry_, "expertmesh_router_placement_moves_completed", "Moves that were completed");
  prometheus::Gauge& moves_failed_ = telemetry::RegisterGauge(
      registry_, "expertmesh_router_placement_moves_failed", "Moves that failed and were undone");
  prometheus::Gauge& repairs_completed_ =
      telemetry::RegisterGauge(registry_, "expertmesh_router_placement_repairs_completed",
                               "Nodes brought back to the plan, such as after a restart");
  prometheus::Gauge& plan_age_ =
      telemetry::RegisterGauge(registry_, "expertmesh_router_placement_plan_age_seconds",
                               "Since the planner was asked last; -1: never");
  prometheus::Gauge& move_age_ =
      telemetry::RegisterGauge(registry_, "expertmesh_router_placement_move_age_seconds",
                               "Since a move was completed last; -1: never");
  prometheus::Gauge& fullest_over_mean_ = telemetry::RegisterGauge(
      registry_, "expertmesh_router_placement_fullest_over_mean",
      "Expected fullest node over the mean of the worst layer, as copies were when planned last");
};

}  // namespace expertmesh::metrics

#endif  // EXPERTMESH_ROUTER_SERVICE_METRICS_BALANCE_METRICS_H_
