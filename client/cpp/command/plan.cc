#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/packed_bytes.h"
#include "client/cpp/command/simulated_mesh.h"
#include "client/cpp/command/statistics.h"
#include "client/cpp/replay/capacity_plan.h"
#include "client/cpp/replay/recorded_load.h"
#include "client/cpp/replay/synthetic_load.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

std::vector<balance::RecordedLayer> LayersOf(const ModelDescription& model) {
  std::vector<balance::RecordedLayer> layers;
  for (const MoeLayerDescription& layer : model.layers) {
    // With expert choice every expert takes as many tokens as the next.
    layers.push_back({.layer = layer.layer,
                      .num_experts = layer.routing.num_experts,
                      .top_k = std::max<uint32_t>(1, layer.routing.top_k)});
  }
  return layers;
}

// [layers][num_experts] Chance that a token takes an expert.
absl::StatusOr<std::vector<std::vector<double>>> ChancesOf(
    const std::string& load, const std::vector<balance::RecordedLayer>& layers) {
  std::vector<std::vector<double>> chances;
  const absl::StatusOr<replay::SyntheticOptions> synthetic = replay::ParseSyntheticLoad(load);
  if (synthetic.ok()) {
    replay::SyntheticLoad made(*synthetic, {.tokens_per_second = 1, .interval_s = 1}, layers);
    replay::IntervalLoad interval;
    made.Next(&interval);
    for (replay::LayerLoad& layer : interval.layers) {
      chances.push_back(std::move(layer.assignments));
    }
    return chances;
  }
  const absl::StatusOr<std::vector<std::string>> files = balance::RecordingFiles(load);
  if (!files.ok()) {
    return absl::NotFoundError(
        absl::StrCat("--load is '", load, "': no recording, and ", synthetic.status().message()));
  }
  ASSIGN_OR_RETURN(const auto recorded, replay::RecordedLoad::Read(load, 3600));
  if (recorded->model().layers != layers) {
    return absl::InvalidArgumentError(
        absl::StrCat(load,
                     ": is a recording of other layers than the model's; name the model that "
                     "was served"));
  }
  chances = recorded->Assignments();
  for (size_t i = 0; i < chances.size(); ++i) {
    double sum = 0;
    for (const double assignments : chances[i]) {
      sum += assignments;
    }
    for (double& assignments : chances[i]) {
      assignments = sum > 0 ? assignments / sum * layers[i].top_k
                            : static_cast<double>(layers[i].top_k) / layers[i].num_experts;
    }
  }
  return chances;
}

absl::StatusOr<replay::CapacityQuestion> QuestionOf(const Options& options,
                                                    const PackedModel& packed) {
  replay::CapacityQuestion question;
  question.layers = LayersOf(packed.model);
  question.expert_bytes = packed.expert_bytes;
  ASSIGN_OR_RETURN(question.chances, ChancesOf(options.Text("load"), question.layers));
  ASSIGN_OR_RETURN(question.node_memory_bytes, ParseBytes(options.Text("node-memory")));
  ASSIGN_OR_RETURN(question.speeds, ParseFactors(options.Text("speeds")));
  question.times = ServiceTimesOf(options);
  question.batch_tokens = static_cast<double>(options.Whole("batch-tokens"));
  question.planner.min_copies =
      static_cast<uint32_t>(std::min<uint64_t>(options.Whole("copies"), UINT32_MAX));
  return question;
}

// Those that were asked for, or some from `fewest` on, with `fast` among them unless it is 0.
absl::StatusOr<std::vector<uint32_t>> NodeCounts(const Options& options, uint32_t fewest,
                                                 uint32_t fast) {
  if (options.Has("nodes")) {
    return ParseNumbers(options.Text("nodes"));
  }
  std::set<uint32_t> counts;
  for (const double factor : {1.0, 1.25, 1.5, 2.0, 4.0}) {
    counts.insert(static_cast<uint32_t>(
        std::min<double>(std::ceil(fewest * factor), replay::kMaxSimulatedNodes)));
  }
  if (fast > 0) {
    counts.insert(fast);
  }
  return std::vector<uint32_t>(counts.begin(), counts.end());
}

struct Outcome {
  PackedModel packed;
  replay::CapacityQuestion question;
  uint64_t bytes = 0;  // One copy of every expert.
  uint32_t fewest = 0;
  std::string not_fast;  // Why no number of nodes reaches the target.
  uint32_t fast = 0;     // The fewest that reach it.
  bool timed = false;    // Times of a node were given.
  double target = 0;     // Tokens in a second; 0: none.
  std::vector<replay::CapacityAnswer> answers;
};

bool Enough(const Outcome& outcome, const replay::CapacityAnswer& answer) {
  return answer.fits && answer.tokens_per_second >= outcome.target;
}

nlohmann::json AnswerJson(const Outcome& outcome, const replay::CapacityAnswer& answer) {
  if (!answer.fits) {
    return {{"nodes", answer.nodes}, {"fits", false}, {"reason", answer.reason}};
  }
  nlohmann::json json = {{"nodes", answer.nodes},
                         {"fits", true},
                         {"spare_copies_per_layer", answer.spare_copies},
                         {"copies", answer.copies},
                         {"node_bytes", answer.node_bytes},
                         {"fullest_over_mean", answer.fullest},
                         {"fullest_over_mean_worst_layer", answer.fullest_worst},
                         {"lower_bound", answer.lower_bound}};
  if (outcome.timed) {
    json["enough"] = Enough(outcome, answer);
    json["tokens_per_second"] = answer.tokens_per_second;
    json["batch_us"] = answer.batch_us;
  }
  return json;
}

std::string ToJson(const Outcome& outcome) {
  nlohmann::json layers = nlohmann::json::array();
  for (size_t i = 0; i < outcome.question.layers.size(); ++i) {
    const balance::RecordedLayer& layer = outcome.question.layers[i];
    layers.push_back({{"layer", layer.layer},
                      {"experts", layer.num_experts},
                      {"top_k", layer.top_k},
                      {"expert_bytes", outcome.question.expert_bytes[i]}});
  }
  nlohmann::json answers = nlohmann::json::array();
  for (const replay::CapacityAnswer& answer : outcome.answers) {
    answers.push_back(AnswerJson(outcome, answer));
  }
  nlohmann::json json = {{"family", outcome.packed.model.family},
                         {"compute_dtype", std::string(NameOf(outcome.packed.compute_dtype))},
                         {"layers", std::move(layers)},
                         {"bytes", outcome.bytes},
                         {"node_memory_bytes", outcome.question.node_memory_bytes},
                         {"fewest_nodes", outcome.fewest},
                         {"meshes", std::move(answers)}};
  if (outcome.target > 0) {
    json["target_tokens_per_second"] = outcome.target;
    json["fewest_nodes_for_target"] =
        outcome.fast > 0 ? nlohmann::json(outcome.fast) : nlohmann::json(nullptr);
  }
  return json.dump(2) + "\n";
}

std::string DescribeFast(const Outcome& outcome) {
  if (outcome.target == 0) {
    return "";
  }
  const std::string target = WithThousands(static_cast<uint64_t>(outcome.target));
  return outcome.fast > 0
             ? absl::StrCat("fewest nodes for ", target, " tokens/s: ", outcome.fast, "\n")
             : absl::StrCat(outcome.not_fast, "\n");
}

std::string Describe(const Outcome& outcome) {
  std::vector<std::vector<std::string>> rows = {{"nodes", "a node holds", "copies", "room for",
                                                 "fullest/mean", "worst layer", "at best",
                                                 "tokens/s", "ms a batch", ""}};
  for (const replay::CapacityAnswer& answer : outcome.answers) {
    if (!answer.fits) {
      rows.push_back({absl::StrCat(answer.nodes), "", "", "", "", "", "", "", "", "too few"});
      continue;
    }
    rows.push_back(
        {absl::StrCat(answer.nodes), FormatBytes(answer.node_bytes), WithThousands(answer.copies),
         absl::StrFormat("+%.0f a layer", answer.spare_copies),
         absl::StrFormat("%.3f", answer.fullest), absl::StrFormat("%.3f", answer.fullest_worst),
         absl::StrFormat("%.3f", answer.lower_bound),
         outcome.timed ? WithThousands(static_cast<uint64_t>(answer.tokens_per_second)) : "-",
         outcome.timed ? absl::StrFormat("%.1f", answer.batch_us / 1000) : "-",
         outcome.target == 0       ? ""
         : Enough(outcome, answer) ? "enough"
                                   : "too slow"});
  }
  const auto [least, most] = std::minmax_element(outcome.question.expert_bytes.begin(),
                                                 outcome.question.expert_bytes.end());
  return absl::StrCat(
      outcome.packed.model.family, ", experts in ", NameOf(outcome.packed.compute_dtype), ": ",
      WithThousands(*least), *least == *most ? "" : absl::StrCat(" to ", WithThousands(*most)),
      " bytes an expert, ", FormatBytes(outcome.bytes), " in ", outcome.question.layers.size(),
      " layers\nfewest nodes of ", FormatBytes(outcome.question.node_memory_bytes), ": ",
      outcome.fewest, "\n", DescribeFast(outcome), FormatTable(rows),
      outcome.timed ? "" : "--assignment-us and other times of a node add tokens/s and latency\n");
}

absl::Status Run(const Options& options) {
  Outcome outcome;
  ASSIGN_OR_RETURN(outcome.packed,
                   ReadPackedModel(options.Text("model"), options.Text("compute-dtype"),
                                   options.Text("weights")));
  ASSIGN_OR_RETURN(outcome.question, QuestionOf(options, outcome.packed));
  for (size_t i = 0; i < outcome.question.layers.size(); ++i) {
    outcome.bytes += outcome.question.layers[i].num_experts * outcome.question.expert_bytes[i];
  }
  outcome.timed = options.Has("assignment-us");
  if (options.Has("tokens-per-second")) {
    if (!outcome.timed) {
      return absl::InvalidArgumentError(
          "--tokens-per-second needs --assignment-us: how long a node takes for an assignment, as "
          "measured");
    }
    outcome.target = options.Number("tokens-per-second");
    RETURN_IF_ERROR(CheckTokensPerSecond(outcome.target));
  }
  ASSIGN_OR_RETURN(outcome.fewest, replay::FewestNodes(outcome.question));
  if (outcome.target > 0) {
    const absl::StatusOr<uint32_t> fast =
        replay::NodesForSpeed(outcome.question, outcome.fewest, outcome.target);
    outcome.fast = fast.value_or(0);
    outcome.not_fast = std::string(fast.status().message());
  }
  ASSIGN_OR_RETURN(const std::vector<uint32_t> counts,
                   NodeCounts(options, outcome.fewest, outcome.fast));
  for (const uint32_t nodes : counts) {
    ASSIGN_OR_RETURN(outcome.answers.emplace_back(), replay::PlanCapacity(outcome.question, nodes));
  }
  const std::string text = options.Has("json") ? ToJson(outcome) : Describe(outcome);
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

std::vector<OptionSpec> PlanOptions() {
  return {
      {.name = "model",
       .value = "DIR",
       .help = "checkpoint, or its config.json alone",
       .required = true},
      {.name = "node-memory",
       .value = "SIZE",
       .help = "of a node for experts, for example 64GiB",
       .required = true},
      {.name = "load",
       .value = "LOAD",
       .help = "a recording, or uniform, zipf:S or hot:K:SHARE",
       .fallback = "zipf:1.0"},
      {.name = "nodes", .value = "N,...", .help = "numbers of nodes (default: from the fewest on)"},
      {.name = "tokens-per-second",
       .kind = OptionKind::kNumber,
       .value = "X",
       .help = "tokens of the whole model that must get through"},
      CountOption("copies", "of every expert, at least", "1"),
      {.name = "speeds", .value = "X,...", .help = "of nodes, in turns", .fallback = "1"},
      CountOption("batch-tokens", "tokens of a batch", "256"),
      {.name = "compute-dtype",
       .kind = OptionKind::kChoice,
       .value = "TYPE",
       .help = "that nodes compute in",
       .fallback = "auto",
       .choices = {"auto", "f32", "bf16"}},
      {.name = "weights",
       .kind = OptionKind::kChoice,
       .value = "KIND",
       .help = "how nodes keep them",
       .fallback = "expanded",
       .choices = {"expanded", "compressed"}},
      {.name = "json", .kind = OptionKind::kSwitch, .help = "as JSON"}};
}

}  // namespace

Command PlanCommand() {
  std::vector<OptionSpec> options = PlanOptions();
  const std::vector<OptionSpec> times = ServiceTimeOptions();
  options.insert(options.end(), times.begin(), times.end());
  return {{"plan",
           "Says how many nodes with how much memory a model needs for a load, and what more nodes "
           "would give.",
           "", std::move(options)},
          &Run};
}

}  // namespace expertmesh::command
