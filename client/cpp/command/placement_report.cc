#include "client/cpp/command/placement_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/plan_file.h"
#include "client/cpp/command/statistics.h"
#include "common/base/ranges.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

// More groups of layers than this are told as a range.
constexpr size_t kMostGroups = 4;

std::string OrWhole(uint32_t number, const char* zero) {
  return number == 0 ? zero : absl::StrCat(number);
}

std::string DescribePolicy(const client::PlacementPolicy& policy) {
  return absl::StrCat(
      policy.automatic ? absl::StrCat("automatic, every ", absl::FormatDuration(policy.interval))
                       : "manual",
      "; copies of an expert: at least ", OrWhole(policy.min_copies, "as many as now"),
      ", at most ", OrWhole(policy.max_copies, "one a node"),
      absl::StrFormat("; hysteresis %g%%", 100 * policy.hysteresis), "; a plan loads ",
      policy.byte_budget == 0 ? "what it needs"
                              : absl::StrCat("at most ", FormatBytes(policy.byte_budget)),
      "; layers with ", WithThousands(policy.min_tokens), " tokens or more");
}

// "8 (layers 0-1), 9 (layer 2)", or "7 to 12 a layer".
std::string DescribeCounts(const std::map<uint32_t, uint32_t>& copies_by_layer) {
  std::map<uint32_t, std::vector<uint32_t>> layers;
  for (const auto& [layer, copies] : copies_by_layer) {
    layers[copies].push_back(layer);
  }
  if (layers.empty()) {
    return "none";
  }
  if (layers.size() > kMostGroups) {
    return absl::StrCat(layers.begin()->first, " to ", layers.rbegin()->first, " a layer");
  }
  return absl::StrJoin(layers, ", ", [](std::string* text, const auto& group) {
    absl::StrAppend(text, group.first, group.second.size() == 1 ? " (layer " : " (layers ",
                    FormatRanges(group.second), ")");
  });
}

std::string DescribePlan(const client::PlacementPlan& plan) {
  std::vector<std::map<uint32_t, uint32_t>> copies(plan.nodes.size());
  uint64_t all = 0;
  uint64_t experts = 0;
  for (const client::LayerPlacement& layer : plan.layers) {
    experts += layer.copies_per_expert.size();
    all += layer.copy_nodes.size();
    for (const uint32_t node : layer.copy_nodes) {
      if (node < copies.size()) {
        ++copies[node][layer.layer];
      }
    }
  }
  std::string text = absl::StrCat("plan in force: ", WithThousands(all), " copies of ",
                                  WithThousands(experts), " experts in ", plan.layers.size(),
                                  " layers on ", plan.nodes.size(), " nodes\n");
  std::vector<std::vector<std::string>> table = {{"node", "copies", "of each layer"}};
  for (size_t node = 0; node < plan.nodes.size(); ++node) {
    uint64_t sum = 0;
    for (const auto& [layer, count] : copies[node]) {
      sum += count;
    }
    table.push_back({plan.nodes[node], WithThousands(sum), DescribeCounts(copies[node])});
  }
  return text + FormatTable(table);
}

// The worst of the layers.
std::string DescribeWorst(const std::vector<client::LayerForecast>& layers) {
  if (layers.empty()) {
    return "";
  }
  client::LayerForecast worst;
  for (const client::LayerForecast& layer : layers) {
    worst.present_fullest_over_mean =
        std::max(worst.present_fullest_over_mean, layer.present_fullest_over_mean);
    worst.fullest_over_mean = std::max(worst.fullest_over_mean, layer.fullest_over_mean);
    worst.lower_bound = std::max(worst.lower_bound, layer.lower_bound);
  }
  return absl::StrFormat(
      "; fullest node over the mean in the worst layer: %.3f, planned %.3f, at "
      "best %.3f",
      worst.present_fullest_over_mean, worst.fullest_over_mean, worst.lower_bound);
}

std::string DescribeLast(const client::PlacementState& placement) {
  if (!placement.last_proposal) {
    return "planner: not asked yet\n";
  }
  const client::PlacementProposal& last = *placement.last_proposal;
  return absl::StrCat(
      "planner", placement.since_planned ? ", " + Ago(*placement.since_planned) : "", ": ",
      last.apply ? "move: " : "nothing to move: ", last.reason, DescribeWorst(last.layers), "\n");
}

// Why nothing moves, when nothing does.
std::string DescribeRest(const client::PlacementState& placement) {
  if (placement.moves.phase != "idle") {
    return "";
  }
  if (!placement.policy.automatic) {
    return "nothing moves by itself: `placement apply` moves, `placement set --automatic` lets the "
           "planner\n";
  }
  return absl::StrCat("nothing moves until the planner says so, every ",
                      absl::FormatDuration(placement.policy.interval), "\n");
}

nlohmann::json MovesJson(const client::PlacementMoves& moves) {
  return {{"phase", moves.phase},
          {"waits_for", moves.waits_for},
          {"copies_done", moves.copies_done},
          {"copies_all", moves.copies_all},
          {"bytes_done", moves.bytes_done},
          {"bytes_all", moves.bytes_all},
          {"bytes_per_second", moves.bytes_per_second},
          {"last_error", moves.last_error},
          {"moves_completed", moves.moves_completed},
          {"moves_failed", moves.moves_failed},
          {"repairs_completed", moves.repairs_completed}};
}

}  // namespace

std::string DescribePhase(const client::PlacementMoves& moves) {
  std::string text = moves.phase;
  if (moves.phase != "idle") {
    absl::StrAppend(&text, ": copies ", moves.copies_done, " of ", moves.copies_all, ", ",
                    FormatBytes(moves.bytes_done), " of ", FormatBytes(moves.bytes_all));
    if (moves.bytes_per_second > 0) {
      absl::StrAppend(&text, ", ", FormatBytes(static_cast<uint64_t>(moves.bytes_per_second)),
                      "/s");
    }
  }
  return moves.waits_for.empty() ? text : absl::StrCat(text, "; waits for ", moves.waits_for);
}

std::string DescribePlacement(const client::PlacementState& placement, bool with_plan) {
  const client::PlacementMoves& moves = placement.moves;
  std::string text =
      absl::StrCat("epoch ", placement.epoch, ", ", DescribePolicy(placement.policy),
                   "\nmoves: ", DescribePhase(moves), "; completed ", moves.moves_completed,
                   ", failed ", moves.moves_failed, ", repairs ", moves.repairs_completed);
  if (placement.since_moved) {
    absl::StrAppend(&text, "; the last was completed ", Ago(*placement.since_moved));
  }
  absl::StrAppend(&text, "\n", moves.last_error.empty() ? "" : "last error: ", moves.last_error,
                  moves.last_error.empty() ? "" : "\n", DescribeLast(placement),
                  DescribeRest(placement));
  if (with_plan) {
    absl::StrAppend(&text, placement.plan ? DescribePlan(*placement.plan)
                                          : "no plan in force: every copy that nodes offer is "
                                            "used\n");
  }
  return text;
}

nlohmann::json PlacementJson(const client::PlacementState& placement) {
  const client::PlacementPolicy& policy = placement.policy;
  return {{"epoch", placement.epoch},
          {"policy",
           {{"automatic", policy.automatic},
            {"interval_ms", absl::ToInt64Milliseconds(policy.interval)},
            {"min_copies", policy.min_copies},
            {"max_copies", policy.max_copies},
            {"hysteresis", policy.hysteresis},
            {"byte_budget", policy.byte_budget},
            {"min_tokens", policy.min_tokens}}},
          {"plan", placement.plan ? PlanJson(*placement.plan) : nlohmann::json()},
          {"last_proposal",
           placement.last_proposal ? ProposalJson(*placement.last_proposal) : nlohmann::json()},
          {"moves", MovesJson(placement.moves)},
          {"since_planned_ms", Millis(placement.since_planned)},
          {"since_moved_ms", Millis(placement.since_moved)}};
}

void PrintPlacement(const client::PlacementState& placement, bool with_plan, bool json) {
  const std::string text =
      json ? PlacementJson(placement).dump() + "\n" : DescribePlacement(placement, with_plan);
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

std::string DescribeProposal(const client::PlacementProposal& proposal, uint64_t moves) {
  std::vector<std::vector<std::string>> table = {
      {"layer", "fullest/mean", "planned", "at best", "gap", ""}};
  for (const client::LayerForecast& layer : proposal.layers) {
    const double present = layer.present_fullest_over_mean;
    const double gap = layer.fullest_over_mean / std::max(layer.lower_bound, 1.0) - 1;
    table.push_back({absl::StrCat(layer.layer),
                     std::isfinite(present) ? absl::StrFormat("%.3f", present) : "too few copies",
                     absl::StrFormat("%.3f", layer.fullest_over_mean),
                     absl::StrFormat("%.3f", layer.lower_bound),
                     absl::StrFormat("%.2f%%", 100 * std::max(gap, 0.0)),
                     layer.changed ? "changes" : "stays"});
  }
  std::string text =
      absl::StrCat(proposal.apply ? "worth moving for: " : "nothing to move: ", proposal.reason,
                   "\n", FormatTable(table));
  absl::StrAppend(&text, WithThousands(proposal.move_count), " moves, ",
                  FormatBytes(proposal.bytes_loaded), " to load");
  if (proposal.load_time > absl::ZeroDuration()) {
    absl::StrAppend(&text,
                    absl::StrFormat(" in %.1f s", absl::ToDoubleSeconds(proposal.load_time)));
  }
  absl::StrAppend(&text, ", ", FormatBytes(proposal.bytes_freed), " freed\n");
  const size_t shown = std::min<uint64_t>(moves, proposal.moves.size());
  for (size_t i = 0; i < shown; ++i) {
    absl::StrAppend(&text, "  ", proposal.moves[i], "\n");
  }
  if (shown < proposal.move_count) {
    absl::StrAppend(&text, "  and ", WithThousands(proposal.move_count - shown),
                    " more (--moves N)\n");
  }
  return text;
}

nlohmann::json ProposalJson(const client::PlacementProposal& proposal) {
  nlohmann::json layers = nlohmann::json::array();
  for (const client::LayerForecast& layer : proposal.layers) {
    layers.push_back({{"layer", layer.layer},
                      {"fullest_over_mean", layer.fullest_over_mean},
                      {"lower_bound", layer.lower_bound},
                      {"present_fullest_over_mean", layer.present_fullest_over_mean},
                      {"changed", layer.changed}});
  }
  nlohmann::json json = {{"apply", proposal.apply},
                         {"reason", proposal.reason},
                         {"layers", std::move(layers)},
                         {"move_count", proposal.move_count},
                         {"bytes_loaded", proposal.bytes_loaded},
                         {"bytes_freed", proposal.bytes_freed},
                         {"load_seconds", absl::ToDoubleSeconds(proposal.load_time)}};
  return json;
}

}  // namespace expertmesh::command
