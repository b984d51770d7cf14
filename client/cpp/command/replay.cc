#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/progress.h"
#include "client/cpp/command/replay_cache.h"
#include "client/cpp/command/replayed_load.h"
#include "client/cpp/command/simulated_mesh.h"
#include "client/cpp/command/statistics.h"
#include "client/cpp/replay/report.h"
#include "client/cpp/replay/service_time_fit.h"
#include "client/cpp/replay/simulation.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_writer.h"

namespace expertmesh::command {
namespace {

// A quarter more than an even share of all experts, and one more of the largest.
uint64_t EnoughMemory(const ReplayedLoad& opened, uint64_t nodes, uint64_t copies) {
  double all = 0;
  uint64_t largest = 0;
  for (size_t i = 0; i < opened.expert_bytes.size(); ++i) {
    all += static_cast<double>(opened.expert_bytes[i]) * opened.load->layers()[i].num_experts *
           static_cast<double>(copies);
    largest = std::max(largest, opened.expert_bytes[i]);
  }
  return static_cast<uint64_t>(
             std::min(std::ceil(1.25 * all / static_cast<double>(nodes)), 0x1p62)) +
         largest;
}

absl::StatusOr<replay::MeshModel> MeshOf(const Options& options, const ReplayedLoad& opened) {
  replay::MeshModel mesh;
  const uint64_t nodes = options.Whole("nodes");
  if (nodes > replay::kMaxSimulatedNodes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--nodes is ", nodes, "; use at most ", replay::kMaxSimulatedNodes));
  }
  ASSIGN_OR_RETURN(const std::vector<double> speeds, ParseFactors(options.Text("speeds")));
  ASSIGN_OR_RETURN(const std::vector<double> links, ParseFactors(options.Text("links")));
  for (uint64_t i = 0; i < nodes; ++i) {
    mesh.nodes.push_back({.speed = speeds[i % speeds.size()], .link = links[i % links.size()]});
  }
  ASSIGN_OR_RETURN(mesh.events, ParseEvents(options.Has("fail") ? options.Text("fail") : "",
                                            replay::MeshEvent::Kind::kFail));
  ASSIGN_OR_RETURN(
      const std::vector<replay::MeshEvent> joins,
      ParseEvents(options.Has("join") ? options.Text("join") : "", replay::MeshEvent::Kind::kJoin));
  for (const replay::MeshEvent& join : joins) {
    const auto fails = [&join](const replay::MeshEvent& event) {
      return event.node == join.node && event.at_s < join.at_s;
    };
    // One that did not fail before it joins is not there at the beginning.
    if (join.node < nodes && std::none_of(mesh.events.begin(), mesh.events.end(), fails)) {
      mesh.nodes[join.node].present = false;
    }
  }
  mesh.events.insert(mesh.events.end(), joins.begin(), joins.end());
  std::stable_sort(mesh.events.begin(), mesh.events.end(),
                   [](const auto& a, const auto& b) { return a.at_s < b.at_s; });
  mesh.times = ServiceTimesOf(options);
  mesh.deal = options.Text("deal") == "shards" ? replay::Deal::kShards : replay::Deal::kTurns;
  mesh.parallel_nodes = static_cast<uint32_t>(
      options.Has("parallel-nodes") ? std::min<uint64_t>(options.Whole("parallel-nodes"), nodes)
                                    : 0);
  mesh.expert_bytes = opened.expert_bytes;
  mesh.copies = static_cast<uint32_t>(std::min<uint64_t>(options.Whole("copies"), UINT32_MAX));
  const auto present = static_cast<uint64_t>(
      std::count_if(mesh.nodes.begin(), mesh.nodes.end(),
                    [](const replay::SimulatedNode& node) { return node.present; }));
  mesh.node_memory_bytes = EnoughMemory(opened, std::max<uint64_t>(1, present), mesh.copies);
  if (options.Has("node-memory")) {
    ASSIGN_OR_RETURN(mesh.node_memory_bytes, ParseBytes(options.Text("node-memory")));
  }
  ASSIGN_OR_RETURN(const uint64_t bandwidth, ParseBytes(options.Text("load-bandwidth")));
  mesh.load_bytes_per_second = static_cast<double>(bandwidth);
  return mesh;
}

// Takes the times from the recording, and says which they are.
absl::Status FitTimes(const Options& options, const replay::LoadSource& load,
                      replay::MeshModel* mesh) {
  if (!options.Has("recording") || HasServiceTimes(options)) {
    return absl::InvalidArgumentError(
        "--fit takes the times from what --recording names; give that, and none of the times");
  }
  // The simulation looks at it, too, but after the fit has used it.
  RETURN_IF_ERROR(replay::ValidateMeshModel(*mesh, load.layers()));
  ASSIGN_OR_RETURN(const replay::ServiceTimeFit fit,
                   replay::FitServiceTimes(options.Text("recording"), *mesh));
  mesh->times = fit.times;
  std::printf("Times of %s batches, half of which they tell to %.1f %%:\n  %s\n",
              WithThousands(fit.batches).c_str(), 100 * fit.median_error,
              FormatServiceTimes(fit.times).c_str());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<replay::Policy>> PoliciesOf(const Options& options, bool has_scores) {
  std::vector<replay::Policy> policies;
  const std::string names = options.Has("policies") ? options.Text("policies")
                            : has_scores            ? "static,planner,sign,both"
                                                    : "static,planner";
  for (const absl::string_view name : absl::StrSplit(names, ',')) {
    replay::Policy policy;
    policy.name = std::string(name);
    policy.plans = name == "planner" || name == "both";
    if (name == "sign" || name == "both") {
      policy.bias.rule = balance::BiasRule::kSign;
    } else if (name == "proportional") {
      policy.bias.rule = balance::BiasRule::kProportional;
    } else if (name != "static" && name != "planner") {
      return absl::InvalidArgumentError(absl::StrCat(
          "--policies has '", name, "'; use static, planner, sign, proportional and both"));
    }
    policy.bias.rate = static_cast<float>(options.Number("bias-rate"));
    policy.bias.quality_budget = static_cast<float>(options.Number("quality-budget"));
    policy.plan_interval_s = absl::ToDoubleSeconds(options.Duration("plan-interval"));
    policy.planner.hysteresis = options.Number("hysteresis");
    policy.planner.min_copies =
        static_cast<uint32_t>(std::min<uint64_t>(options.Whole("copies"), UINT32_MAX));
    if (options.Has("move-budget")) {
      ASSIGN_OR_RETURN(policy.planner.byte_budget, ParseBytes(options.Text("move-budget")));
    }
    policies.push_back(std::move(policy));
  }
  return policies;
}

std::string Table(const replay::SimulationResult& result) {
  std::vector<std::vector<std::string>> rows = {{"policy", "fullest/mean", "worst", "MaxVio",
                                                 "of a batch", "changed", "lost", "p50 us",
                                                 "p99 us", "busiest", "moves", "loaded"}};
  for (const replay::PolicyResult& policy : result.policies) {
    const replay::IntervalFigures sum = replay::Summarise(policy);
    rows.push_back({policy.name, absl::StrFormat("%.3f", sum.fullest),
                    absl::StrFormat("%.3f", sum.fullest_worst),
                    absl::StrFormat("%.3f", sum.max_violation),
                    absl::StrFormat("%.3f", sum.max_violation_batch),
                    absl::StrFormat("%.2f %%", 100 * sum.changed_worst),
                    absl::StrFormat("%.2f %%", 100 * sum.lost), absl::StrFormat("%.0f", sum.p50_us),
                    absl::StrFormat("%.0f", sum.p99_us), absl::StrFormat("%.1f %%", 100 * sum.busy),
                    WithThousands(sum.moves), FormatBytes(sum.bytes)});
  }
  std::string text = FormatTable(rows);
  for (const replay::PolicyResult& policy : result.policies) {
    if (policy.failed_plans > 0) {
      absl::StrAppend(&text, policy.name, ": ", policy.failed_plans,
                      " plans could not be made: ", policy.failure, "\n");
    }
  }
  return text;
}

absl::Status WriteReports(const Options& options, const replay::Report& report) {
  for (const char* kind : {"json", "html"}) {
    if (options.Has(kind)) {
      RETURN_IF_ERROR(checkpoint::WriteFileAtomically(
          options.Text(kind), kind == std::string("json") ? ToJson(report) : ToHtml(report),
          checkpoint::Durability::kRename));
    }
  }
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const ReplayedLoad opened, OpenReplayedLoad(options));
  if (options.Has("cache")) {
    return ReplayCaches(options, opened);
  }
  ASSIGN_OR_RETURN(replay::MeshModel mesh, MeshOf(options, opened));
  if (options.Has("fit")) {
    RETURN_IF_ERROR(FitTimes(options, *opened.load, &mesh));
  }
  ASSIGN_OR_RETURN(const std::vector<replay::Policy> policies,
                   PoliciesOf(options, opened.load->has_scores()));
  replay::SimulationOptions simulation;
  simulation.threads = static_cast<int>(std::clamp<uint64_t>(
      options.Has("threads") ? options.Whole("threads") : std::thread::hardware_concurrency(), 1,
      256));
  replay::Report report = {.load = opened.load->Describe(),
                           .interval_s = opened.load->interval_s(),
                           .mesh = mesh,
                           .layers = static_cast<uint32_t>(opened.load->layers().size()),
                           .result = {}};
  {
    Progress progress("Simulating", opened.load->intervals());
    ASSIGN_OR_RETURN(report.result, replay::Simulate(*opened.load, mesh, policies, simulation,
                                                     [&progress](uint64_t) { progress.Add(1); }));
  }
  RETURN_IF_ERROR(WriteReports(options, report));
  std::printf("%s\n%zu nodes with %s for experts, %u layers, %zu intervals of %g s\n%s",
              report.load.c_str(), mesh.nodes.size(), FormatBytes(mesh.node_memory_bytes).c_str(),
              report.layers, opened.load->intervals(), report.interval_s,
              Table(report.result).c_str());
  if (!opened.load->has_scores()) {
    std::printf(
        "A recording has counts alone: what another bias would do cannot be told from it.\n");
  }
  return absl::OkStatus();
}

std::vector<OptionSpec> MeshOptions() {
  return {
      CountOption("nodes", "nodes, those that join later included", "8"),
      {.name = "speeds", .value = "X,...", .help = "of nodes, in turns", .fallback = "1"},
      {.name = "links",
       .value = "X,...",
       .help = "times of a row on the link of a node, in turns",
       .fallback = "1"},
      {.name = "node-memory",
       .value = "SIZE",
       .help = "for experts (default: a quarter more than an even share)"},
      {.name = "load-bandwidth",
       .value = "SIZE",
       .help = "that a node loads in a second",
       .fallback = "1GiB"},
      CountOption("copies", "of every expert, at least", "1"),
      {.name = "deal",
       .kind = OptionKind::kChoice,
       .value = "HOW",
       .help = "experts are dealt to nodes at first: in turns over all layers, or as --shard and "
               "--replicas of nodes do it",
       .fallback = "turns",
       .choices = {"turns", "shards"}},
      {.name = "parallel-nodes",
       .kind = OptionKind::kWhole,
       .value = "N",
       .help = "nodes that compute at the same time, where they share cores (default: all)"},
      {.name = "fit",
       .kind = OptionKind::kSwitch,
       .help = "take the times from the recording, which was made on such nodes"},
      {.name = "fail", .value = "N@TIME,...", .help = "nodes that fail, counted from 0"},
      {.name = "join", .value = "N@TIME,...", .help = "nodes that join, or come back"}};
}

std::vector<OptionSpec> PolicyOptions() {
  return {{.name = "policies",
           .value = "NAME,...",
           .help = "to compare: static, planner, sign, proportional, both (planner and sign)"},
          {.name = "plan-interval",
           .kind = OptionKind::kDuration,
           .value = "TIME",
           .help = "between two plans",
           .fallback = "1m"},
          {.name = "move-budget", .value = "SIZE", .help = "that a plan may load (default: any)"},
          {.name = "hysteresis",
           .kind = OptionKind::kNumber,
           .value = "SHARE",
           .help = "by which a layer's fullest node must improve",
           .fallback = "0.02"},
          {.name = "quality-budget",
           .kind = OptionKind::kNumber,
           .value = "SHARE",
           .help = "of tokens that a bias may send elsewhere",
           .fallback = "0.02"},
          {.name = "bias-rate",
           .kind = OptionKind::kNumber,
           .value = "X",
           .help = "of a step of the bias",
           .fallback = "0.001"},
          {.name = "threads", .kind = OptionKind::kWhole, .value = "N", .help = "(default: cores)"},
          {.name = "json", .value = "FILE", .help = "all figures, as JSON"},
          {.name = "html", .value = "FILE", .help = "a page with charts"}};
}

}  // namespace

Command ReplayCommand() {
  std::vector<OptionSpec> options = ReplayedLoadOptions();
  for (std::vector<OptionSpec> more :
       {MeshOptions(), ServiceTimeOptions(), PolicyOptions(), CacheOptions()}) {
    options.insert(options.end(), more.begin(), more.end());
  }
  return {{"replay",
           "Runs a recorded or made-up load through the mesh's planner and balancer on simulated "
           "nodes,\nand compares policies: fullest node, MaxVio, moves, quality budget, latency.",
           "", std::move(options)},
          &Run};
}

}  // namespace expertmesh::command
