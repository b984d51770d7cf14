// How PlanningRun keeps to a budget.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/balance/planning_run.h"

namespace expertmesh::balance {
namespace {

// A layer that loads no more offers every number of loads, and steps of levels otherwise: an offer
// costs up to a plan.
constexpr uint32_t kFewLoads = 6;

}  // namespace

// What there is between no loads and `whole_loads`.
absl::Status PlanningRun::OfferSteps(uint32_t whole_loads) {
  offered_.clear();
  if (whole_loads > kFewLoads) {
    if (!planner_.PlanSteps(options_.tolerance, &steps_)) {
      return NoPlace();
    }
    for (size_t step = 0; step < steps_.size(); ++step) {
      offered_.push_back({step, steps_[step].loads, unit_ * steps_[step].level});
    }
    return absl::OkStatus();
  }
  for (uint32_t loads = 0; loads < whole_loads; ++loads) {
    if (!planner_.PlanToStep(options_.tolerance, 0, loads)) {
      return NoPlace();
    }
    if (offered_.empty() || planner_.loads() > offered_.back().loads) {
      offered_.push_back({0, planner_.loads(), unit_ * planner_.level()});
    }
  }
  return absl::OkStatus();
}

absl::Status PlanningRun::AddChoices(BudgetDivision* division) {
  const Choice& whole = whole_[layer_];
  if (absl::Status status = OfferSteps(whole.loads); !status.ok()) {
    return status;
  }
  std::vector<Choice>& choices = choices_.emplace_back();
  if (std::isfinite(forecast_.present_fullest)) {
    choices.push_back({0, 0, forecast_.present_fullest});
  }
  const auto add = [&](const Choice& choice) {
    if (IsWorthwhile(choice.level)) {
      choices.push_back(choice);
    }
  };
  for (size_t i = 0; i < offered_.size() && offered_[i].loads < whole.loads; ++i) {
    add(offered_[i]);
  }
  add(whole);
  for (const Choice& choice : choices) {
    division->AddChoice(layer_, input_.layers[layer_].expert_bytes, choice.loads, choice.level);
  }
  return absl::OkStatus();
}

absl::Status PlanningRun::PlanWithin(uint64_t budget) {
  BudgetDivision division(budget);
  for (size_t layer = 0; layer < input_.layers.size(); ++layer) {
    Begin(layer);
    if (absl::Status status = AddChoices(&division); !status.ok()) {
      return status;
    }
  }
  if (division.LeastBytes() > budget) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the budget is ", budget,
                     " bytes, and the copies that experts must have and "
                     "have not are ",
                     division.LeastBytes(), ": raise byte_budget or seconds_budget to that"));
  }
  const std::vector<size_t> taken = division.Divide();
  uint64_t left = division.left();
  Clear();
  for (size_t layer = 0; layer < input_.layers.size(); ++layer) {
    Begin(layer);
    const Choice& choice = choices_[layer][taken[layer]];
    const uint64_t bytes = input_.layers[layer].expert_bytes;
    const uint64_t before = result_.bytes_loaded;
    const auto more = static_cast<uint32_t>(
        std::min<uint64_t>(left / bytes, problem_.experts() * uint64_t{problem_.nodes()}));
    if (absl::Status status = PlanChoice(choice, more); !status.ok()) {
      return status;
    }
    left += (choice.loads * bytes) - (result_.bytes_loaded - before);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::balance
