#include "client/cpp/replay/mesh_model.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/model/expert_shard.h"

namespace expertmesh::replay {
namespace {

absl::Status CheckPositive(absl::string_view field, double value) {
  if (std::isfinite(value) && value > 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; use more than 0"));
}

absl::Status CheckNotNegative(absl::string_view field, double value) {
  if (std::isfinite(value) && value >= 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; use 0 or more"));
}

absl::Status CheckEvents(const MeshModel& mesh) {
  double last = 0;
  for (const MeshEvent& event : mesh.events) {
    if (event.node >= mesh.nodes.size()) {
      return absl::InvalidArgumentError(absl::StrCat("node ", event.node,
                                                     " fails or joins; the "
                                                     "mesh has nodes 0 to ",
                                                     mesh.nodes.size() - 1));
    }
    if (!(event.at_s >= last)) {
      return absl::InvalidArgumentError(
          absl::StrCat("events at ", event.at_s, " s after ", last, " s; list them by time"));
    }
    last = event.at_s;
  }
  return absl::OkStatus();
}

// Positions of the nodes that are there at the beginning.
std::vector<uint32_t> PresentNodes(const MeshModel& mesh) {
  std::vector<uint32_t> present;
  for (uint32_t i = 0; i < mesh.nodes.size(); ++i) {
    if (mesh.nodes[i].present) {
      present.push_back(i);
    }
  }
  return present;
}

// A layer has no fewer experts than there are shards, as nodes demand it.
absl::Status CheckDeal(const MeshModel& mesh, size_t present,
                       absl::Span<const balance::RecordedLayer> layers) {
  for (const balance::RecordedLayer& layer : layers) {
    if (mesh.deal == Deal::kShards && layer.num_experts < present) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", layer.layer, " has ",
                                                     layer.num_experts, " experts, fewer than the ",
                                                     present, " shards; deal them in turns"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRoom(const MeshModel& mesh, absl::Span<const balance::RecordedLayer> layers) {
  std::vector<uint64_t> bytes(mesh.nodes.size());
  const std::vector<balance::LayerPlacement> first = FirstPlacement(mesh, layers);
  for (size_t i = 0; i < first.size(); ++i) {
    for (const std::vector<balance::ExpertCopy>& copies : first[i].experts) {
      for (const balance::ExpertCopy& copy : copies) {
        bytes[copy.node] += mesh.expert_bytes[i];
      }
    }
  }
  const uint64_t most = *std::max_element(bytes.begin(), bytes.end());
  if (most > mesh.node_memory_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a node would hold ", most, " bytes of experts, and has memory for ",
                     mesh.node_memory_bytes, "; use more nodes, more memory or fewer copies"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateServiceTimes(const ServiceTimes& times) {
  RETURN_IF_ERROR(CheckPositive("time of an assignment", times.assignment_us));
  RETURN_IF_ERROR(CheckNotNegative("time of an expert", times.expert_us));
  RETURN_IF_ERROR(CheckNotNegative("time of a batch", times.batch_us));
  RETURN_IF_ERROR(CheckNotNegative("time of a row", times.row_us));
  RETURN_IF_ERROR(CheckNotNegative("time of a token", times.token_us));
  return CheckNotNegative("time of the hops", times.hop_us);
}

absl::Status ValidateMeshModel(const MeshModel& mesh,
                               absl::Span<const balance::RecordedLayer> layers) {
  if (mesh.nodes.empty() || mesh.nodes.size() > kMaxSimulatedNodes) {
    return absl::InvalidArgumentError(
        absl::StrCat(mesh.nodes.size(), " nodes; use 1 to ", kMaxSimulatedNodes));
  }
  for (const SimulatedNode& node : mesh.nodes) {
    RETURN_IF_ERROR(CheckPositive("speed of a node", node.speed));
    RETURN_IF_ERROR(CheckNotNegative("link of a node", node.link));
  }
  const size_t present = PresentNodes(mesh).size();
  if (mesh.copies == 0 || mesh.copies > present) {
    return absl::InvalidArgumentError(absl::StrCat(mesh.copies, " copies of each expert; use 1 to ",
                                                   present, ", the nodes at the beginning"));
  }
  RETURN_IF_ERROR(ValidateServiceTimes(mesh.times));
  RETURN_IF_ERROR(CheckPositive("bytes that a node loads in a second", mesh.load_bytes_per_second));
  RETURN_IF_ERROR(CheckEvents(mesh));
  RETURN_IF_ERROR(CheckDeal(mesh, present, layers));
  EXPERTMESH_CHECK(mesh.expert_bytes.size() == layers.size());
  return CheckRoom(mesh, layers);
}

std::vector<balance::LayerPlacement> FirstPlacement(
    const MeshModel& mesh, absl::Span<const balance::RecordedLayer> layers) {
  const std::vector<uint32_t> present = PresentNodes(mesh);
  const auto shards = static_cast<uint32_t>(present.size());
  const size_t apart = mesh.deal == Deal::kShards ? 1 : std::max(1U, shards / mesh.copies);
  std::vector<balance::LayerPlacement> placement;
  size_t turn = 0;
  for (const balance::RecordedLayer& layer : layers) {
    balance::LayerPlacement placed;
    placed.layer = layer.layer;
    placed.experts.resize(layer.num_experts);
    for (uint32_t expert = 0; expert < layer.num_experts; ++expert, ++turn) {
      std::vector<balance::ExpertCopy>& copies = placed.experts[expert];
      const size_t home =
          mesh.deal == Deal::kShards ? ShardOfExpert(layer.num_experts, shards, expert) : turn;
      for (uint32_t i = 0; i < mesh.copies; ++i) {
        copies.push_back({.node = present[(home + i * apart) % shards],
                          .share = 1.0f / static_cast<float>(mesh.copies)});
      }
      std::sort(copies.begin(), copies.end(),
                [](const balance::ExpertCopy& a, const balance::ExpertCopy& b) {
                  return a.node < b.node;
                });
    }
    placement.push_back(std::move(placed));
  }
  return placement;
}

std::string SimulatedNodeId(uint32_t node) { return absl::StrCat("node-", node); }

}  // namespace expertmesh::replay
