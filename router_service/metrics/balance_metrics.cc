#include "router_service/metrics/balance_metrics.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace expertmesh::metrics {
namespace {

double Seconds(uint64_t milliseconds) { return static_cast<double>(milliseconds) / 1000; }

constexpr const char* kPhases[] = {"idle",      "loading",        "switching",
                                   "unloading", "switching back", "undoing"};

}  // namespace

void BalanceMetrics::SetLayer(const v1::LayerBalance& layer) {
  const std::map<std::string, std::string> labels = {{"layer", absl::StrCat(layer.layer())}};
  const v1::LayerMeasures& measures = layer.measures();
  const auto set = [&labels](Family& family, double value) { family.Add(labels).Set(value); };
  set(max_violation_, layer.max_violation());
  set(batch_max_violation_, measures.batch_max_violation());
  set(variation_, measures.load_variation());
  set(entropy_, measures.load_entropy());
  set(mean_squared_share_, measures.mean_squared_share());
  set(dead_experts_, measures.dead_experts());
  set(collapsed_, measures.collapse().empty() ? 0 : 1);
  set(changed_share_, layer.compared_tokens() == 0
                          ? 0
                          : static_cast<double>(layer.changed_tokens()) /
                                static_cast<double>(layer.compared_tokens()));
  set(bias_distance_, layer.bias_distance());
  if (measures.sampled_tokens() > 0) {
    set(switch_loss_, measures.switch_loss());
    set(gshard_loss_, measures.gshard_loss());
    set(megatron_loss_, measures.megatron_loss());
    set(sequence_loss_, measures.sequence_loss());
    set(importance_loss_, measures.importance_loss());
    set(z_loss_, measures.z_loss());
    set(second_place_loss_, measures.second_place_loss());
  }
}

void BalanceMetrics::SetPlacement(const v1::PlacementState& placement) {
  const v1::PlacementMoves& moves = placement.moves();
  for (const char* phase : kPhases) {
    move_phase_.Add({{"phase", phase}}).Set(moves.phase() == phase ? 1 : 0);
  }
  move_bytes_.Set(static_cast<double>(moves.bytes_done()));
  moves_completed_.Set(static_cast<double>(moves.moves_completed()));
  moves_failed_.Set(static_cast<double>(moves.moves_failed()));
  repairs_completed_.Set(static_cast<double>(moves.repairs_completed()));
  plan_age_.Set(placement.has_since_planned_ms() ? Seconds(placement.since_planned_ms()) : -1);
  move_age_.Set(placement.has_since_moved_ms() ? Seconds(placement.since_moved_ms()) : -1);
  double worst = 1;
  for (const v1::LayerForecast& layer : placement.last_proposal().layers()) {
    worst = std::max(worst, layer.present_fullest_over_mean());
  }
  fullest_over_mean_.Set(worst);
}

void BalanceMetrics::Set(const v1::Balance& balance, const v1::PlacementState& placement) {
  const v1::BalanceSummary& summary = balance.summary();
  alive_.Set(summary.alive() ? 1 : 0);
  authority_.Set(summary.role() == v1::BALANCE_ROLE_AUTHORITY ? 1 : 0);
  term_.Set(static_cast<double>(summary.term()));
  change_age_.Set(Seconds(summary.since_change_ms()));
  tick_age_.Set(Seconds(summary.since_tick_ms()));
  double known = 0;
  double oldest = 0;
  for (const v1::ReportingRouter& router : balance.routers()) {
    known += router.gone() ? 0 : 1;
    oldest = router.gone() ? oldest : std::max(oldest, Seconds(router.age_ms()));
  }
  routers_.Set(known);
  report_age_.Set(oldest);
  for (const v1::LayerBalance& layer : balance.layers()) {
    SetLayer(layer);
  }
  SetPlacement(placement);
}

}  // namespace expertmesh::metrics
