#include "client/cpp/command/plan_file.h"

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/command/layer_file.h"
#include "common/base/durable_file.h"
#include "common/base/status_macros.h"
#include "common/json/json_reader.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

// The copies of each expert are on different nodes of `nodes`, with shares from 0 to 1.
absl::Status CheckCopies(const JsonReader& reader, const client::LayerPlacement& layer) {
  uint64_t copies = 0;
  for (size_t expert = 0; expert < layer.copies_per_expert.size(); ++expert) {
    if (layer.copies_per_expert[expert] == 0) {
      return reader.Error(absl::StrCat("copies_per_expert[", expert, "] is 0; each expert has 1"));
    }
    copies += layer.copies_per_expert[expert];
  }
  if (copies != layer.copy_nodes.size() || copies != layer.copy_shares.size()) {
    return reader.Error(absl::StrCat(
        "copies_per_expert adds up to ", copies, ", but copy_nodes has ", layer.copy_nodes.size(),
        " and copy_shares ", layer.copy_shares.size(), "; there must be one for each copy"));
  }
  size_t copy = 0;
  for (size_t expert = 0; expert < layer.copies_per_expert.size(); ++expert) {
    for (uint32_t number = 0; number < layer.copies_per_expert[expert]; ++number, ++copy) {
      if (number > 0 && layer.copy_nodes[copy] <= layer.copy_nodes[copy - 1]) {
        return reader.Error(absl::StrCat("copy_nodes[", copy, "] of expert ", expert,
                                         " does not ascend; a node holds an expert once"));
      }
      if (layer.copy_shares[copy] < 0 || layer.copy_shares[copy] > 1) {
        return reader.Error(absl::StrCat("copy_shares[", copy, "] is ", layer.copy_shares[copy],
                                         "; it must be from 0 to 1"));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<client::LayerPlacement> ReadLayer(const JsonReader& reader) {
  client::LayerPlacement layer;
  ASSIGN_OR_RETURN(layer.layer, reader.Whole("layer"));
  ASSIGN_OR_RETURN(layer.copies_per_expert, reader.WholeNumbers("copies_per_expert"));
  ASSIGN_OR_RETURN(layer.copy_nodes, reader.WholeNumbers("copy_nodes"));
  ASSIGN_OR_RETURN(layer.copy_shares, ReadFloats(reader, "copy_shares", "copy"));
  RETURN_IF_ERROR(CheckCopies(reader, layer));
  RETURN_IF_ERROR(reader.Done());
  return layer;
}

absl::Status CheckNodes(const JsonReader& reader, const client::PlacementPlan& plan) {
  std::set<std::string> distinct;
  for (const std::string& node : plan.nodes) {
    if (node.empty() || !distinct.insert(node).second) {
      return reader.Error(absl::StrCat("nodes has '", node, "' twice, or empty; name each once"));
    }
  }
  for (const client::LayerPlacement& layer : plan.layers) {
    for (const uint32_t node : layer.copy_nodes) {
      if (node >= plan.nodes.size()) {
        return reader.Error(absl::StrCat("layer ", layer.layer, " has a copy on node ", node,
                                         "; there are ", plan.nodes.size(), " nodes, from 0"));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<client::PlacementPlan> Read(const JsonReader& reader, std::string* outline) {
  client::PlacementPlan plan;
  ASSIGN_OR_RETURN(*outline, ReadOutline(reader));
  ASSIGN_OR_RETURN(plan.nodes, reader.Strings("nodes"));
  ASSIGN_OR_RETURN(plan.layers, ReadLayers<client::LayerPlacement>(reader, &ReadLayer));
  RETURN_IF_ERROR(CheckNodes(reader, plan));
  RETURN_IF_ERROR(reader.Done());
  return plan;
}

}  // namespace

nlohmann::json PlanJson(const client::PlacementPlan& plan) {
  nlohmann::json layers = nlohmann::json::array();
  for (const client::LayerPlacement& layer : plan.layers) {
    layers.push_back({{"layer", layer.layer},
                      {"copies_per_expert", layer.copies_per_expert},
                      {"copy_nodes", layer.copy_nodes},
                      {"copy_shares", layer.copy_shares}});
  }
  return {{"nodes", plan.nodes}, {"layers", std::move(layers)}};
}

absl::Status WritePlan(const std::string& path, const std::string& outline,
                       const client::PlacementPlan& plan) {
  nlohmann::json json = PlanJson(plan);
  json["outline"] = outline;
  return WriteDurably(path, json.dump() + "\n");
}

absl::StatusOr<client::PlacementPlan> ReadPlan(const std::string& path,
                                               const std::string& outline) {
  ASSIGN_OR_RETURN(const JsonReader reader, JsonReader::FromFile(path));
  std::string read_outline;
  absl::StatusOr<client::PlacementPlan> plan = Read(reader, &read_outline);
  if (!plan.ok()) {
    return NoSuchFile(reader, "no plan of `expertmesh placement plan --out`", plan.status());
  }
  if (read_outline != outline) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": this is a plan for another model, of outline ", read_outline,
                     "; the router serves that of ", outline, "; plan with this router"));
  }
  return plan;
}

}  // namespace expertmesh::command
