#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/numbers.h"
#include "common/base/ranges.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/model_config.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/model/routing_json.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

struct Weights {
  uint64_t files = 0;
  uint64_t bytes = 0;
  // Size of one expert of the first MoE layer: values, biases and scales.
  uint64_t bytes_per_expert = 0;
  std::string fingerprint;
  // By the tensors, which config.json may contradict.
  Dtype dtype = Dtype::kF32;
  std::vector<std::string> warnings;
};

// Nothing when the folder holds no weights. What is there must be whole.
absl::StatusOr<std::optional<Weights>> ReadWeights(const std::string& directory) {
  Weights weights;
  bool found = false;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() == ".safetensors") {
      ++weights.files;
      const uint64_t bytes = entry.file_size(error);
      weights.bytes += error ? 0 : bytes;
    } else if (name != "model.safetensors.index.json") {
      continue;
    }
    // An index alone counts, too: opening says what is missing.
    found = true;
  }
  if (!found) {
    return std::nullopt;
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                   checkpoint::MoeCheckpoint::Open(directory));
  weights.fingerprint = checkpoint->fingerprint();
  weights.dtype = checkpoint->model().dtype;
  weights.warnings = {checkpoint->warnings().begin(), checkpoint->warnings().end()};
  weights.bytes_per_expert = checkpoint->ExpertBytes(checkpoint->model().layers.front().layer, 0);
  return weights;
}

absl::string_view NameOf(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return "silu";
    case Activation::kRelu:
      return "relu";
    case Activation::kClampedSwiglu:
      return "clamped_swiglu";
  }
  return "";
}

nlohmann::json ToJson(const ModelDescription& model, const std::optional<Weights>& weights) {
  nlohmann::json layers = nlohmann::json::array();
  for (const MoeLayerDescription& layer : model.layers) {
    layers.push_back({{"layer", layer.layer},
                      {"experts", layer.routing.num_experts},
                      {"top_k", layer.routing.top_k},
                      {"intermediate_size", layer.expert.intermediate_size},
                      {"activation", std::string(NameOf(layer.expert.activation))},
                      {"gated", layer.expert.gated},
                      {"bias", layer.expert.bias},
                      {"shared_intermediate_size", layer.shared_intermediate_size},
                      {"shared_gate", layer.shared_gate},
                      {"routing", nlohmann::json::parse(RoutingJson(layer.routing))}});
  }
  nlohmann::json json = {{"family", model.family},
                         {"dtype", std::string(NameOf(model.dtype))},
                         {"d_model", model.d_model},
                         {"num_layers", model.num_layers},
                         {"moe_layers", std::move(layers)},
                         {"parameters",
                          {{"total", model.parameters.total},
                           {"active", model.parameters.active},
                           {"routed_experts", model.parameters.routed_experts},
                           {"per_expert", model.parameters.per_expert}}},
                         {"weights", nullptr}};
  if (weights.has_value()) {
    json["weights"] = {{"files", weights->files},
                       {"bytes", weights->bytes},
                       {"bytes_per_expert", weights->bytes_per_expert},
                       {"fingerprint", weights->fingerprint},
                       {"warnings", weights->warnings}};
  }
  return json;
}

// Layers that are alike take one line.
std::string DescribeLayers(const ModelDescription& model) {
  std::string text;
  std::vector<uint32_t> alike;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const MoeLayerDescription& layer = model.layers[i];
    alike.push_back(layer.layer);
    const MoeLayerDescription* next = i + 1 < model.layers.size() ? &model.layers[i + 1] : nullptr;
    if (next != nullptr && next->routing == layer.routing && next->expert == layer.expert &&
        next->shared_intermediate_size == layer.shared_intermediate_size &&
        next->shared_gate == layer.shared_gate) {
      continue;
    }
    absl::StrAppend(&text, "  layers ", FormatRanges(alike), ": ", layer.routing.num_experts,
                    " experts of width ", layer.expert.intermediate_size, " (",
                    NameOf(layer.expert.activation), layer.expert.bias ? ", with biases" : "",
                    "), ", layer.routing.top_k, " per token");
    if (layer.shared_intermediate_size > 0) {
      absl::StrAppend(&text, ", shared expert of width ", layer.shared_intermediate_size,
                      layer.shared_gate ? " with a gate" : "");
    }
    absl::StrAppend(&text, "\n");
    alike.clear();
  }
  return text;
}

std::string Describe(const ModelDescription& model, const std::optional<Weights>& weights) {
  const ParameterCounts& parameters = model.parameters;
  std::string text = absl::StrCat(
      "family:            ", model.family, "\ndtype:             ", NameOf(model.dtype),
      "\nd_model:           ", model.d_model, "\nlayers:            ", model.num_layers, ", ",
      model.layers.size(), " with experts\n", DescribeLayers(model),
      "parameters, total: ", WithThousands(parameters.total),
      "\nparameters, active: ", WithThousands(parameters.active),
      "\nrouted experts:    ", WithThousands(parameters.routed_experts), ", ",
      WithThousands(parameters.per_expert), " each\n");
  if (weights.has_value()) {
    absl::StrAppend(&text, "on disk:           ", WithThousands(weights->bytes), " bytes in ",
                    weights->files, weights->files == 1 ? " file" : " files", ", ",
                    WithThousands(weights->bytes_per_expert),
                    " an expert\nfingerprint:       ", weights->fingerprint, "\n");
    for (const std::string& warning : weights->warnings) {
      absl::StrAppend(&text, "warning:           ", warning, "\n");
    }
  } else {
    absl::StrAppend(&text, "on disk:           no weights, config.json only\n");
  }
  return text;
}

absl::Status Run(const Options& options) {
  const std::string& path = options.argument();
  ASSIGN_OR_RETURN(ModelDescription model, checkpoint::ReadModelDescription(path));
  ASSIGN_OR_RETURN(const std::optional<Weights> weights, ReadWeights(path));
  if (weights.has_value()) {
    model.dtype = weights->dtype;
  }
  const std::string text =
      options.Has("json") ? ToJson(model, weights).dump(2) + "\n" : Describe(model, weights);
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

Command CheckpointInspectCommand() {
  return {{"checkpoint inspect",
           "Family, parameters, experts and bytes of a checkpoint; config.json alone is enough.",
           "DIR",
           {{.name = "json", .kind = OptionKind::kSwitch, .help = "as JSON"}}},
          &Run};
}

}  // namespace expertmesh::command
