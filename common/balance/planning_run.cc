#include "common/balance/planning_run.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/balance/plan_moves.h"

namespace expertmesh::balance {
namespace {

constexpr uint32_t kNone = LayerCopies::kNone;
// How far shares of an expert that add up to 1 may be from it.
constexpr double kShareRounding = 1e-3;
// A load that is as little as none beside the largest.
constexpr double kNoLoad = 1e-30;

}  // namespace

PlanningRun::PlanningRun(const PlanningInput& input, const PlannerOptions& options)
    : input_(input), options_(options) {
  for (const NodeToPlan& node : input.nodes) {
    rates_.push_back(1 / ((1 / node.speed) + node.link_cost));
    all_rates_ += rates_.back();
    accepts_.push_back(node.accepts_copies ? 1 : 0);
    result_.plan.nodes.push_back(node.node_id);
  }
  NumberZones();
}

void PlanningRun::NumberZones() {
  absl::flat_hash_map<absl::string_view, uint32_t> numbers;
  absl::flat_hash_set<uint32_t> open;
  for (const NodeToPlan& node : input_.nodes) {
    zones_.push_back(
        numbers.emplace(node.zone, static_cast<uint32_t>(numbers.size())).first->second);
    if (node.accepts_copies) {
      open.insert(zones_.back());
    }
  }
  zone_count_ = numbers.size();
  if (options_.spread_zones) {
    zones_required_ = std::min(options_.min_copies, static_cast<uint32_t>(open.size()));
  }
}

void PlanningRun::CollectHeld() {
  const size_t nodes = input_.nodes.size();
  held_.resize(input_.layers.size());
  held_counts_.assign(input_.layers.size() * nodes, 0);
  has_plan_.assign(input_.layers.size(), 0);
  absl::flat_hash_map<uint32_t, size_t> layers;
  for (size_t layer = 0; layer < input_.layers.size(); ++layer) {
    layers[input_.layers[layer].layer] = layer;
    if (input_.nodes.front().held.empty()) {  // Likely the first plan: a move for each expert.
      experts_ += input_.layers[layer].loads.size();
    }
  }
  for (uint32_t node = 0; node < nodes; ++node) {
    for (const HeldExperts& held : input_.nodes[node].held) {
      const size_t layer = layers[held.layer];
      held_counts_[(layer * nodes) + node] = static_cast<uint32_t>(held.experts.size());
      for (const uint32_t expert : held.experts) {
        held_[layer].push_back({expert, node, 0});
      }
    }
  }
  for (std::vector<HeldCopy>& held : held_) {
    std::sort(held.begin(), held.end(), [](const HeldCopy& a, const HeldCopy& b) {
      return a.expert != b.expert ? a.expert < b.expert : a.node < b.node;
    });
  }
  absl::flat_hash_map<absl::string_view, uint32_t> by_id;
  for (const std::string& id : input_.present.nodes) {
    by_id.emplace(id, static_cast<uint32_t>(by_id.size()));
  }
  std::vector<uint32_t> positions;
  for (const NodeToPlan& node : input_.nodes) {
    const auto known = by_id.find(node.node_id);
    positions.push_back(known == by_id.end() ? kNone : known->second);
  }
  for (const LayerPlacement& present : input_.present.layers) {
    const size_t layer = layers[present.layer];
    has_plan_[layer] = 1;
    ShareAsPresent(present, positions, &held_[layer]);
  }
}

// `positions`: of the input's nodes, in the present plan's.
void PlanningRun::ShareAsPresent(const LayerPlacement& present,
                                 const std::vector<uint32_t>& positions,
                                 std::vector<HeldCopy>* held) {
  for (HeldCopy& one : *held) {
    for (const ExpertCopy& copy : present.experts[one.expert]) {
      if (copy.node == positions[one.node]) {
        one.share = copy.share;
      }
    }
  }
}

// Copies that experts must have beside those on nodes that accept none. Several of the latter in
// one zone count as far as the expert is in as many zones as it must be with the rest.
SlotNeeds PlanningRun::NeedsSlots(size_t layer) const {
  const auto experts = static_cast<uint32_t>(input_.layers[layer].loads.size());
  SlotNeeds needs;
  needs.copies = uint64_t{options_.min_copies} * experts;
  needs.in_each_zone = zones_required_ < options_.min_copies;
  std::vector<uint32_t> without(zone_count_, experts);
  const std::vector<HeldCopy>& held = held_[layer];
  absl::flat_hash_set<uint32_t> zones;
  for (size_t begin = 0, end = 0; begin < held.size(); begin = end) {
    uint32_t copies = 0;
    zones.clear();
    for (end = begin; end < held.size() && held[end].expert == held[begin].expert; ++end) {
      if (accepts_[held[end].node] == 0) {
        ++copies;
        zones.insert(zones_[held[end].node]);
      }
    }
    for (const uint32_t zone : zones) {
      --without[zone];
    }
    const auto in_zones = std::min(zones_required_, static_cast<uint32_t>(zones.size()));
    needs.copies -= std::min(copies, options_.min_copies - (zones_required_ - in_zones));
  }
  if (zones_required_ > 1) {
    needs.without = std::move(without);
  }
  return needs;
}

void PlanningRun::Begin(size_t layer) {
  layer_ = layer;
  const std::vector<double>& loads = input_.layers[layer].loads;
  unit_ = *std::max_element(loads.begin(), loads.end());
  loads_.assign(loads.size(), 1);
  if (unit_ > 0) {
    std::transform(loads.begin(), loads.end(), loads_.begin(),
                   [this](double load) { return load > kNoLoad * unit_ ? load / unit_ : 0; });
  } else {
    unit_ = 1;
  }
  const double all_loads = std::accumulate(loads_.begin(), loads_.end(), 0.0);
  const auto nodes = static_cast<uint32_t>(input_.nodes.size());
  problem_.loads = loads_;
  problem_.rates = rates_;
  problem_.slots = slots_.OfLayer(layer);
  problem_.zones = zones_;
  problem_.accepts = accepts_;
  problem_.min_copies = options_.min_copies;
  problem_.max_copies = options_.max_copies == 0 ? nodes : options_.max_copies;
  problem_.zones_required = zones_required_;
  planner_.Begin(problem_);
  std::vector<HeldCopy>& held = held_[layer];
  for (size_t begin = 0, end = 0; begin < held.size(); begin = end) {
    double shares = 0;
    for (end = begin; end < held.size() && held[end].expert == held[begin].expert; ++end) {
      shares += held[end].share;
    }
    for (size_t i = begin; i < end; ++i) {
      const double even = 1.0 / static_cast<double>(end - begin);
      if (has_plan_[layer] == 0) {
        held[i].share = static_cast<float>(even);
      }
      planner_.AddHeld(
          held[i].expert, held[i].node,
          problem_.loads[held[i].expert] * (shares > 0 ? held[i].share / shares : even));
    }
  }
  forecast_ = {};
  forecast_.layer = input_.layers[layer].layer;
  forecast_.mean = unit_ * all_loads / all_rates_;
  forecast_.lower_bound = unit_ * planner_.Bound();
  if (IsWhole()) {
    forecast_.present_fullest = unit_ * PresentLevel(&forecast_.fullest_node);
  }
}

// What is held, with its present shares, serves all experts as it must.
bool PlanningRun::IsWhole() const {
  const LayerCopies& held = planner_.held();
  for (uint32_t node = 0; node < problem_.nodes(); ++node) {
    if (held.count_of_node(node) > problem_.slots[node]) {
      return false;
    }
  }
  if (held_[layer_].size() < problem_.experts()) {
    return false;
  }
  std::vector<double> shares(problem_.experts());
  for (const HeldCopy& one : held_[layer_]) {
    shares[one.expert] += one.share;
  }
  for (uint32_t expert = 0; expert < problem_.experts(); ++expert) {
    if (held.count_of_expert(expert) < problem_.min_copies ||
        held.count_of_expert(expert) > problem_.max_copies ||
        held.ZonesOf(expert, kNone, kNone) < zones_required_ ||
        std::fabs(shares[expert] - 1) > kShareRounding) {
      return false;
    }
  }
  return true;
}

double PlanningRun::PresentLevel(uint32_t* fullest_node) const {
  std::vector<double> rows(problem_.nodes());
  for (const HeldCopy& one : held_[layer_]) {
    rows[one.node] += problem_.loads[one.expert] * one.share;
  }
  double fullest = 0;
  for (uint32_t node = 0; node < problem_.nodes(); ++node) {
    if (rows[node] / rates_[node] > fullest) {
      fullest = rows[node] / rates_[node];
      *fullest_node = node;
    }
  }
  return fullest;
}

absl::Status PlanningRun::NoPlace() const {
  return absl::ResourceExhaustedError(absl::StrCat(
      "expert ", planner_.missing_expert(), " of layer ", forecast_.layer,
      " has no place: min_copies is ", options_.min_copies, ", in ", zones_required_,
      " zones, and the nodes with room have it or are in zones that do; add nodes or capacity, "
      "lower min_copies, or set spread_zones to false"));
}

bool PlanningRun::IsWorthwhile(double level) const {
  // Infinite times 0 is no number.
  return std::isinf(forecast_.present_fullest) ||
         level < forecast_.present_fullest * (1 - options_.hysteresis) * (1 - 1e-9);
}

absl::Status PlanningRun::PlanChoice(const Choice& choice, uint32_t more_loads) {
  const bool found = choice.step == kWhole ? planner_.Plan(options_.tolerance)
                                           : planner_.PlanToStep(options_.tolerance, choice.step,
                                                                 choice.loads + more_loads);
  if (!found) {
    return NoPlace();
  }
  TakePlan();
  return absl::OkStatus();
}

void PlanningRun::TakePlan() {
  const double level = unit_ * planner_.level();
  if (IsWorthwhile(level)) {
    forecast_.changed = true;
    forecast_.fullest = level;
    forecast_.fullest_node = planner_.copies().FullestNode();
    result_.plan.layers.push_back(PlacementOf(forecast_.layer, planner_.copies()));
    AppendMoves(layer_, input_.layers[layer_].expert_bytes, problem_.loads, held_[layer_],
                result_.plan.layers.back(), &result_);
  } else {
    const double gain = 1 - (level / forecast_.present_fullest);
    if (gain > kept_gain_) {
      kept_gain_ = gain;
      kept_layer_ = layer_;
    }
    forecast_.fullest = forecast_.present_fullest;
    result_.plan.layers.push_back(PlacementOf(forecast_.layer, problem_.experts(), held_[layer_]));
  }
  result_.layers.push_back(forecast_);
}

void PlanningRun::Clear() {
  result_.plan.layers.clear();
  result_.plan.layers.reserve(input_.layers.size());
  result_.layers.clear();
  result_.moves.clear();
  result_.moves.reserve(experts_);
  result_.bytes_loaded = 0;
  result_.bytes_freed = 0;
  kept_gain_ = 0;
}

absl::Status PlanningRun::PlanAll() {
  Clear();
  for (size_t layer = 0; layer < input_.layers.size(); ++layer) {
    Begin(layer);
    if (absl::Status status = PlanChoice({kWhole, 0, 0}, 0); !status.ok()) {
      return status;
    }
    whole_.push_back({kWhole, planner_.loads(), unit_ * planner_.level()});
  }
  return absl::OkStatus();
}

absl::StatusOr<PlanningResult> PlanningRun::Run() {
  CollectHeld();
  std::vector<SlotNeeds> needs;
  for (size_t layer = 0; layer < input_.layers.size(); ++layer) {
    needs.push_back(NeedsSlots(layer));
  }
  if (absl::Status status = slots_.Fill(input_, options_.min_copies, zones_, held_counts_, needs);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = PlanAll(); !status.ok()) {
    return status;
  }
  double budget = options_.byte_budget.has_value() ? static_cast<double>(*options_.byte_budget)
                                                   : static_cast<double>(result_.bytes_loaded);
  if (options_.seconds_budget.has_value()) {
    budget = std::min(budget, *options_.seconds_budget * options_.bytes_per_second);
  }
  if (static_cast<double>(result_.bytes_loaded) > budget) {
    if (absl::Status status = PlanWithin(static_cast<uint64_t>(budget)); !status.ok()) {
      return status;
    }
  }
  const auto changed = [](const LayerForecast& layer) { return layer.changed; };
  if (std::any_of(result_.layers.begin(), result_.layers.end(), changed)) {
    result_.decision = PlanDecision::kApply;
  }
  result_.reason = ReasonFor(result_, options_.hysteresis, kept_gain_, kept_layer_);
  if (options_.bytes_per_second > 0) {
    result_.load_seconds = static_cast<double>(result_.bytes_loaded) / options_.bytes_per_second;
  }
  std::sort(result_.plan.layers.begin(), result_.plan.layers.end(),
            [](const LayerPlacement& a, const LayerPlacement& b) { return a.layer < b.layer; });
  return std::move(result_);
}

}  // namespace expertmesh::balance
