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
#include "router_service/metrics/balance_metric_table.h"

namespace expertmesh::metrics {

// Each member is an entry of the table, where name, help and labels stand.
class BalanceMetrics {
  prometheus::Registry& registry_;  // Before the members that are registered in it.

 public:
  // `registry` must outlive the metrics.
  explicit BalanceMetrics(prometheus::Registry& registry) : registry_(registry) {}

  // One call at a time.
  void Set(const v1::Balance& balance, const v1::PlacementState& placement);

 private:
  using Family = prometheus::Family<prometheus::Gauge>;

  Family& Layers(const telemetry::GaugeInfo& info) {
    return telemetry::RegisterGauges(registry_, info);
  }
  void SetLayer(const v1::LayerBalance& layer);
  void SetPlacement(const v1::PlacementState& placement);

  prometheus::Gauge& alive_ = telemetry::RegisterGauge(registry_, table::kBalanceAlive);
  prometheus::Gauge& authority_ = telemetry::RegisterGauge(registry_, table::kBalanceAuthority);
  prometheus::Gauge& term_ = telemetry::RegisterGauge(registry_, table::kBalanceTerm);
  prometheus::Gauge& change_age_ =
      telemetry::RegisterGauge(registry_, table::kBalanceChangeAgeSeconds);
  prometheus::Gauge& tick_age_ = telemetry::RegisterGauge(registry_, table::kBalanceTickAgeSeconds);
  prometheus::Gauge& routers_ = telemetry::RegisterGauge(registry_, table::kBalanceRouters);
  prometheus::Gauge& report_age_ =
      telemetry::RegisterGauge(registry_, table::kBalanceOldestReportAgeSeconds);

  Family& max_violation_ = Layers(table::kLoadMaxViolation);
  Family& batch_max_violation_ = Layers(table::kLoadBatchMaxViolation);
  Family& variation_ = Layers(table::kLoadVariation);
  Family& entropy_ = Layers(table::kLoadEntropy);
  Family& mean_squared_share_ = Layers(table::kLoadMeanSquaredShare);
  Family& dead_experts_ = Layers(table::kDeadExperts);
  Family& collapsed_ = Layers(table::kLayerCollapsed);
  Family& changed_share_ = Layers(table::kChangedRoutingShare);
  Family& bias_distance_ = Layers(table::kBiasDistance);
  Family& switch_loss_ = Layers(table::kSwitchLoss);
  Family& gshard_loss_ = Layers(table::kGshardLoss);
  Family& megatron_loss_ = Layers(table::kMegatronLoss);
  Family& sequence_loss_ = Layers(table::kSequenceLoss);
  Family& importance_loss_ = Layers(table::kImportanceLoss);
  Family& z_loss_ = Layers(table::kZLoss);
  Family& second_place_loss_ = Layers(table::kSecondPlaceLoss);

  // {phase}: 1 for the one that it is in.
  Family& move_phase_ = telemetry::RegisterGauges(registry_, table::kPlacementMoving);
  prometheus::Gauge& move_bytes_ = telemetry::RegisterGauge(registry_, table::kPlacementMoveBytes);
  prometheus::Gauge& moves_completed_ =
      telemetry::RegisterGauge(registry_, table::kPlacementMovesCompleted);
  prometheus::Gauge& moves_failed_ =
      telemetry::RegisterGauge(registry_, table::kPlacementMovesFailed);
  prometheus::Gauge& repairs_completed_ =
      telemetry::RegisterGauge(registry_, table::kPlacementRepairsCompleted);
  prometheus::Gauge& plan_age_ =
      telemetry::RegisterGauge(registry_, table::kPlacementPlanAgeSeconds);
  prometheus::Gauge& move_age_ =
      telemetry::RegisterGauge(registry_, table::kPlacementMoveAgeSeconds);
  prometheus::Gauge& fullest_over_mean_ =
      telemetry::RegisterGauge(registry_, table::kPlacementFullestOverMean);
};

}  // namespace expertmesh::metrics

#endif  // EXPERTMESH_ROUTER_SERVICE_METRICS_BALANCE_METRICS_H_
