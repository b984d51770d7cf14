#include "client/cpp/command/balance_report.h"

#include <cstdio>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/statistics.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

const char* RoleName(client::BalanceRole role) {
  switch (role) {
    case client::BalanceRole::kAuthority:
      return "authority";
    case client::BalanceRole::kFollower:
      return "follower";
    case client::BalanceRole::kUnknown:
      break;
  }
  return "";
}

const char* RuleName(client::BalanceRule rule) {
  switch (rule) {
    case client::BalanceRule::kFrozen:
      return "frozen";
    case client::BalanceRule::kSign:
      return "sign";
    case client::BalanceRule::kProportional:
      return "proportional";
    case client::BalanceRule::kUnknown:
      break;
  }
  return "";
}

nlohmann::json ToJson(const client::LayerMeasures& measures) {
  return {{"batch_max_violation", measures.batch_max_violation},
          {"load_variation", measures.load_variation},
          {"load_loss", measures.load_loss},
          {"load_entropy", measures.load_entropy},
          {"mean_squared_share", measures.mean_squared_share},
          {"dead_experts", measures.dead_experts},
          {"collapse", measures.collapse},
          {"sampled_tokens", measures.sampled_tokens},
          {"switch_loss", measures.switch_loss},
          {"gshard_loss", measures.gshard_loss},
          {"megatron_loss", measures.megatron_loss},
          {"sequence_loss", measures.sequence_loss},
          {"importance_loss", measures.importance_loss},
          {"z_loss", measures.z_loss},
          {"second_place_loss", measures.second_place_loss}};
}

nlohmann::json ToJson(const client::LayerBalance& layer) {
  const client::BalancePolicy& policy = layer.policy;
  return {{"layer", layer.layer},
          {"policy",
           {{"rule", RuleName(policy.rule)},
            {"rate", policy.rate},
            {"clamp", policy.clamp},
            {"decay", policy.decay},
            {"quality_budget", policy.quality_budget},
            {"step_tokens", policy.step_tokens},
            {"paused", policy.paused}}},
          {"outcome", layer.outcome},
          {"not_steerable", layer.not_steerable},
          {"at_checkpoint", layer.at_checkpoint},
          {"bias_distance", layer.bias_distance},
          {"tokens", layer.tokens},
          {"max_violation", layer.max_violation},
          {"compared_tokens", layer.compared_tokens},
          {"changed_tokens", layer.changed_tokens},
          {"measures", layer.measures ? ToJson(*layer.measures) : nlohmann::json()}};
}

nlohmann::json ToJson(const client::Balance& balance) {
  nlohmann::json layers = nlohmann::json::array();
  for (const client::LayerBalance& layer : balance.layers) {
    layers.push_back(ToJson(layer));
  }
  nlohmann::json routers = nlohmann::json::array();
  for (const client::ReportingRouter& router : balance.routers) {
    routers.push_back({{"router_id", router.router_id},
                       {"self", router.self},
                       {"tokens", router.tokens},
                       {"age_ms", absl::ToInt64Milliseconds(router.age)},
                       {"epoch", router.epoch},
                       {"gone", router.gone}});
  }
  return {{"summary", SummaryJson(balance.summary)},
          {"epoch", balance.epoch},
          {"layers", std::move(layers)},
          {"routers", std::move(routers)}};
}

std::string DescribeLayers(const std::vector<client::LayerBalance>& layers) {
  std::vector<std::vector<std::string>> table = {
      {"layer", "rule", "rate", "budget", "tokens", "MaxVio", "changed", "bias", "last"}};
  std::string rest;
  for (const client::LayerBalance& layer : layers) {
    if (!layer.not_steerable.empty()) {
      absl::StrAppend(&rest, "layer ", layer.layer, " cannot be steered: ", layer.not_steerable,
                      "\n");
      continue;
    }
    const double budget = layer.policy.quality_budget;
    table.push_back(
        {absl::StrCat(layer.layer), RuleName(layer.policy.rule),
         absl::StrFormat("%g", layer.policy.rate),
         budget < 1 ? absl::StrFormat("%g%%", 100 * budget) : std::string("none"),
         WithThousands(layer.tokens), absl::StrFormat("%.2f", layer.max_violation),
         DescribeChanged(layer.changed_tokens, layer.compared_tokens),
         layer.at_checkpoint ? "checkpoint" : absl::StrFormat("%.4f", layer.bias_distance),
         layer.policy.paused ? "paused" : layer.outcome});
  }
  return absl::StrCat(table.size() > 1 ? FormatTable(table) : "", rest);
}

std::string DescribeRouters(const std::vector<client::ReportingRouter>& routers) {
  std::vector<std::vector<std::string>> table = {{"router", "tokens", "epoch", "reported"}};
  for (const client::ReportingRouter& router : routers) {
    table.push_back({router.router_id, WithThousands(router.tokens), absl::StrCat(router.epoch),
                     router.gone   ? "gone"
                     : router.self ? "this one"
                                   : Ago(router.age)});
  }
  return routers.empty() ? "" : FormatTable(table);
}

}  // namespace

OptionSpec BalanceJsonOption() {
  return {.name = "json", .kind = OptionKind::kSwitch, .help = "one JSON object a line"};
}

std::string DescribeSummary(const client::BalanceSummary& summary) {
  const bool follows = summary.role == client::BalanceRole::kFollower;
  std::string text = absl::StrCat(
      follows ? absl::StrCat("follows ", summary.authority) : "authority", ", term ", summary.term,
      summary.alive ? ", alive" : absl::StrCat(", NOT ALIVE: ", summary.reason));
  if (summary.since_tick) {
    absl::StrAppend(&text, "; ", follows ? "heard " : "looked ", Ago(*summary.since_tick));
  }
  if (summary.since_change) {
    absl::StrAppend(&text, "; changed ", Ago(*summary.since_change));
  }
  return text;
}

nlohmann::json SummaryJson(const client::BalanceSummary& summary) {
  return {{"role", RoleName(summary.role)},
          {"authority", summary.authority},
          {"term", summary.term},
          {"alive", summary.alive},
          {"reason", summary.reason},
          {"since_change_ms", Millis(summary.since_change)},
          {"since_tick_ms", Millis(summary.since_tick)}};
}

std::string Ago(absl::Duration age) {
  return absl::StrFormat("%.1f s ago", absl::ToDoubleSeconds(age));
}

nlohmann::json Millis(const std::optional<absl::Duration>& age) {
  return age ? nlohmann::json(absl::ToInt64Milliseconds(*age)) : nlohmann::json();
}

void PrintBalance(const client::Balance& balance, bool json, bool measures) {
  const std::string text =
      json ? ToJson(balance).dump() + "\n"
           : absl::StrCat("epoch ", balance.epoch, ", ", DescribeSummary(balance.summary), "\n",
                          DescribeLayers(balance.layers),
                          measures ? DescribeMeasures(balance.layers) : "",
                          DescribeRouters(balance.routers));
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

std::string DescribeMeasures(const std::vector<client::LayerBalance>& layers) {
  std::vector<std::vector<std::string>> table = {
      {"layer", "MaxVio(batch)", "CV", "entropy", "dead", "squared share", "sampled", "Switch",
       "GShard", "Megatron", "sequence", "importance", "z", "second"}};
  std::string collapses;
  for (const client::LayerBalance& layer : layers) {
    if (!layer.measures) {
      continue;
    }
    const client::LayerMeasures& measures = *layer.measures;
    const auto loss = [&measures](double value) {
      return measures.sampled_tokens == 0 ? std::string("-") : absl::StrFormat("%.4g", value);
    };
    table.push_back(
        {absl::StrCat(layer.layer), absl::StrFormat("%.2f", measures.batch_max_violation),
         absl::StrFormat("%.2f", measures.load_variation),
         absl::StrFormat("%.3f", measures.load_entropy), absl::StrCat(measures.dead_experts),
         absl::StrFormat("%.4g", measures.mean_squared_share),
         WithThousands(measures.sampled_tokens), loss(measures.switch_loss),
         loss(measures.gshard_loss), loss(measures.megatron_loss), loss(measures.sequence_loss),
         loss(measures.importance_loss), loss(measures.z_loss), loss(measures.second_place_loss)});
    if (!measures.collapse.empty()) {
      absl::StrAppend(&collapses, "layer ", layer.layer, ": ", measures.collapse, "\n");
    }
  }
  return table.size() > 1 ? FormatTable(table) + collapses
                          : "the router is too old to tell these measures\n";
}

std::string DescribeChanged(uint64_t changed, uint64_t compared) {
  return compared == 0 ? "-"
                       : absl::StrFormat("%.2f%%", 100.0 * static_cast<double>(changed) /
                                                       static_cast<double>(compared));
}

}  // namespace expertmesh::command
