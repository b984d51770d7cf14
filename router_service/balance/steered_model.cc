#include "router_service/balance/steered_model.h"

#include "absl/strings/str_cat.h"
#include "common/base/peer_text.h"
#include "common/wire/error_reason.h"

namespace expertmesh::balance_control {
namespace {

constexpr size_t kMostOutline = 80;

}  // namespace

SteeredLayer MakeSteeredLayer(const MoeLayerDescription& description,
                              const std::vector<float>& select_bias) {
  const RoutingOptions& routing = description.routing;
  SteeredLayer layer;
  layer.num_experts = routing.num_experts;
  layer.top_k = routing.top_k;
  layer.expert_parameters = description.expert.parameters();
  if (description.shared_intermediate_size > 0) {
    layer.shared_parameters = description.shared_expert().parameters();
  }
  layer.checkpoint_bias = select_bias;
  layer.checkpoint_bias.resize(routing.num_experts);
  switch (routing.choice) {
    case Choice::kTopK:
      break;
    case Choice::kSparseMixer:
      layer.not_steerable = "its routing is the sparse mixer, which adds no bias";
      break;
    case Choice::kExpertChoice:
      layer.not_steerable = "its experts choose their tokens, and are balanced by that";
      break;
    case Choice::kHash:
      layer.not_steerable = "its tokens go to experts by their ids";
      break;
  }
  return layer;
}

absl::Status CheckOutline(const SteeredModel& model, const std::string& outline,
                          const std::string& peer) {
  if (outline == model.outline) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(peer, " serves another model: its outline is '", PeerText(outline, kMostOutline),
                   "', here it is '", model.outline, "'; start both with the same --model"));
}

absl::Status CheckSteerable(const SteeredModel& model, uint32_t layer) {
  const auto it = model.layers.find(layer);
  if (it == model.layers.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, " is not a MoE layer of this model; DescribeModel lists them"));
  }
  if (!it->second.not_steerable.empty()) {
    return ErrorOf(
        v1::ERROR_REASON_NOT_STEERABLE,
        absl::StrCat("layer ", layer, " has no bias to steer: ", it->second.not_steerable),
        {{"layer", absl::StrCat(layer)}});
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::balance_control
