// One call of the planner: its layers, one after another, and what they come to together.
#ifndef EXPERTMESH_COMMON_BALANCE_PLANNING_RUN_H_
#define EXPERTMESH_COMMON_BALANCE_PLANNING_RUN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/balance/budget_division.h"
#include "common/balance/layer_copies.h"
#include "common/balance/layer_planner.h"
#include "common/balance/placement_planner.h"
#include "common/balance/plan_moves.h"
#include "common/balance/slot_table.h"

namespace expertmesh::balance {

// Used once. `input` and `options` are valid as they were checked, and outlive it.
class PlanningRun {
 public:
  PlanningRun(const PlanningInput& input, const PlannerOptions& options);

  absl::StatusOr<PlanningResult> Run();

 private:
  // What a layer may load, within a budget.
  struct Choice {
    size_t step = 0;  // The planner's; kWhole: the plan without a limit.
    uint32_t loads = 0;
    double level = 0;
  };
  static constexpr size_t kWhole = ~size_t{0};

  void NumberZones();
  void CollectHeld();
  void ShareAsPresent(const LayerPlacement& present, const std::vector<uint32_t>& positions,
                      std::vector<HeldCopy>* held);
  SlotNeeds NeedsSlots(size_t layer) const;
  void Clear();
  absl::Status PlanAll();
  absl::Status PlanWithin(uint64_t budget);

  // These are about one layer, the one that Begin() was called for.
  void Begin(size_t layer);
  bool IsWhole() const;
  double PresentLevel(uint32_t* fullest_node) const;
  absl::Status NoPlace() const;
  bool IsWorthwhile(double level) const;
  absl::Status OfferSteps(uint32_t whole_loads);
  absl::Status AddChoices(BudgetDivision* division);
  absl::Status PlanChoice(const Choice& choice, uint32_t more_loads);
  void TakePlan();
  const PlanningInput& input_;
  const PlannerOptions& options_;
  SlotTable slots_;
  std::vector<double> rates_;
  double all_rates_ = 0;
  std::vector<uint32_t> zones_;
  size_t zone_count_ = 0;
  uint32_t zones_required_ = 1;
  std::vector<uint8_t> accepts_;
  std::vector<uint32_t> held_counts_;        // [layers, nodes]
  std::vector<std::vector<HeldCopy>> held_;  // [layers] By expert, then node.
  std::vector<uint8_t> has_plan_;            // [layers]
  size_t experts_ = 0;                       // Moves to make room for.
  size_t layer_ = 0;
  LayerProblem problem_;
  double unit_ = 1;
  LayerForecast forecast_;
  std::vector<double> loads_;  // In units of the largest.
  LayerPlanner planner_;
  // [layers] What they come to without a limit.
  std::vector<Choice> whole_;
  std::vector<LayerPlanner::Step> steps_;
  std::vector<Choice> offered_;               // To the layer that Begin() was called for.
  std::vector<std::vector<Choice>> choices_;  // [layers]
  // What hysteresis keeps from being done.
  double kept_gain_ = 0;
  size_t kept_layer_ = 0;
  PlanningResult result_;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_PLANNING_RUN_H_
