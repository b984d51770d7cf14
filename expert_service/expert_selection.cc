#include "expert_service/expert_selection.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/ranges.h"
#include "common/base/status_macros.h"
#include "common/model/expert_shard.h"

namespace expertmesh::node {
namespace {

absl::Status FlagError(absl::string_view flag, absl::string_view value, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(flag, "=", value, ": ", why));
}

std::string MoeLayerList(const ModelDescription& model) {
  std::vector<uint32_t> layers;
  for (const MoeLayerDescription& layer : model.layers) {
    layers.push_back(layer.layer);
  }
  return FormatRanges(layers);
}

// ParseRanges with an error that names the flag.
absl::StatusOr<std::vector<uint32_t>> ParseFlag(absl::string_view flag, absl::string_view value,
                                                uint32_t limit) {
  absl::StatusOr<std::vector<uint32_t>> numbers = ParseRanges(value, limit);
  return numbers.ok() ? std::move(numbers) : FlagError(flag, value, numbers.status().message());
}

absl::StatusOr<std::vector<const MoeLayerDescription*>> SelectLayers(
    const SelectionFlags& flags, const ModelDescription& model) {
  std::vector<const MoeLayerDescription*> layers;
  if (flags.layers.empty()) {
    for (const MoeLayerDescription& layer : model.layers) {
      layers.push_back(&layer);
    }
    return layers;
  }
  ASSIGN_OR_RETURN(const std::vector<uint32_t> numbers,
                   ParseFlag("--layers", flags.layers, model.num_layers));
  for (const uint32_t number : numbers) {
    const MoeLayerDescription* layer = model.FindLayer(number);
    if (layer == nullptr) {
      return FlagError(
          "--layers", flags.layers,
          absl::StrCat("layer ", number, " is not a MoE layer; the MoE layers of this model are ",
                       MoeLayerList(model)));
    }
    layers.push_back(layer);
  }
  return layers;
}

std::vector<uint32_t> ExpertsOfShard(uint32_t num_experts, Fraction shard, uint32_t replicas) {
  std::vector<uint32_t> experts;
  for (uint32_t back = 0; back < replicas; ++back) {
    const uint32_t run = (shard.index + shard.count - back) % shard.count;
    const uint32_t end = FirstExpertOfShard(num_experts, shard.count, run + 1);
    for (uint32_t expert = FirstExpertOfShard(num_experts, shard.count, run); expert < end;
         ++expert) {
      experts.push_back(expert);
    }
  }
  std::sort(experts.begin(), experts.end());
  return experts;
}

// The experts of one layer that --experts, or --shard and --replicas, select.
absl::StatusOr<std::vector<uint32_t>> ExpertsOfLayer(const SelectionFlags& flags, Fraction shard,
                                                     const MoeLayerDescription& layer) {
  const uint32_t num_experts = layer.routing.num_experts;
  if (!flags.experts.empty()) {
    return ParseFlag("--experts", flags.experts, num_experts);
  }
  if (!flags.shard.empty()) {
    if (shard.count > num_experts) {
      return FlagError("--shard", flags.shard,
                       absl::StrCat("layer ", layer.layer, " has only ", num_experts,
                                    " experts; use at most as many shards"));
    }
    return ExpertsOfShard(num_experts, shard, flags.replicas);
  }
  std::vector<uint32_t> all(num_experts);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

absl::Status CheckReplicas(const SelectionFlags& flags, Fraction shard) {
  if (flags.shard.empty()) {
    if (flags.replicas != 1) {
      return FlagError("--replicas", absl::StrCat(flags.replicas), "needs --shard i/n");
    }
    return absl::OkStatus();
  }
  if (!flags.experts.empty()) {
    return FlagError("--shard", flags.shard, "cannot be combined with --experts; give one of them");
  }
  if (flags.replicas < 1 || flags.replicas > shard.count) {
    return FlagError(
        "--replicas", absl::StrCat(flags.replicas),
        absl::StrCat("must be from 1 to the number of shards (", shard.count, " in --shard)"));
  }
  return absl::OkStatus();
}

// Adds the shared experts of `layer`, if it has any.
void AddShared(const MoeLayerDescription& layer, std::vector<LayerExperts>* selection) {
  if (layer.shared_intermediate_size == 0) {
    return;
  }
  if (selection->back().slice != IntermediateSlice()) {
    selection->push_back({layer.layer, {}, {}});
  }
  selection->back().experts.push_back(layer.shared_expert_id());
}

// No layer of `layers` has shared experts although they are asked for.
absl::Status CheckShared(const SelectionFlags& flags,
                         const std::vector<const MoeLayerDescription*>& layers) {
  if (!flags.shared_experts ||
      std::any_of(layers.begin(), layers.end(), [](const MoeLayerDescription* layer) {
        return layer->shared_intermediate_size > 0;
      })) {
    return absl::OkStatus();
  }
  return FlagError("--shared-experts", "true",
                   "none of the selected layers has shared experts; leave the flag out");
}

}  // namespace

absl::StatusOr<Fraction> ParseFraction(absl::string_view flag, absl::string_view value) {
  const std::vector<absl::string_view> parts = absl::StrSplit(value, '/');
  Fraction fraction;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &fraction.index) ||
      !absl::SimpleAtoi(parts[1], &fraction.count) || fraction.index >= fraction.count) {
    return FlagError(flag, value, "give i/n with 0 <= i < n, for example 0/4");
  }
  return fraction;
}

absl::StatusOr<std::vector<LayerExperts>> SelectExperts(const SelectionFlags& flags,
                                                        const ModelDescription& model) {
  Fraction shard;
  Fraction slice;
  if (!flags.shard.empty()) {
    ASSIGN_OR_RETURN(shard, ParseFraction("--shard", flags.shard));
  }
  if (!flags.slice.empty()) {
    ASSIGN_OR_RETURN(slice, ParseFraction("--slice", flags.slice));
  }
  RETURN_IF_ERROR(CheckReplicas(flags, shard));
  ASSIGN_OR_RETURN(const std::vector<const MoeLayerDescription*> layers,
                   SelectLayers(flags, model));
  RETURN_IF_ERROR(CheckShared(flags, layers));
  std::vector<LayerExperts> selection;
  for (const MoeLayerDescription* layer : layers) {
    if (layer->expert.intermediate_size % slice.count != 0) {
      return FlagError(
          "--slice", flags.slice,
          absl::StrCat("the intermediate size of layer ", layer->layer, ", ",
                       layer->expert.intermediate_size, ", is not divisible by ", slice.count));
    }
    LayerExperts chosen;
    chosen.layer = layer->layer;
    chosen.slice = {slice.index, slice.count};
    ASSIGN_OR_RETURN(chosen.experts, ExpertsOfLayer(flags, shard, *layer));
    selection.push_back(std::move(chosen));
    if (flags.shared_experts) {
      AddShared(*layer, &selection);
    }
  }
  return selection;
}

absl::Status CheckExperts(const MoeLayerDescription* layer, const LayerExperts& wanted) {
  if (layer == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("layer ", wanted.layer, " is not a MoE layer of this model"));
  }
  for (const uint32_t expert : wanted.experts) {
    if (expert >= layer->hostable_experts()) {
      return absl::NotFoundError(
          absl::StrCat("layer ", wanted.layer, " has no expert ", expert, "; it has ",
                       layer->routing.num_experts,
                       layer->shared_intermediate_size > 0 ? " and a shared one" : ""));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSlice(const MoeLayerDescription& layer, uint32_t expert,
                        IntermediateSlice slice) {
  const uint32_t intermediate = layer.hostable_expert(expert).intermediate_size;
  if (slice.count == 0 || slice.index >= slice.count || intermediate % slice.count != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "slice ", slice.index, " of ", slice.count, " of layer ", layer.layer, " expert ", expert,
        " is impossible; its intermediate size ", intermediate,
        " must be divisible by the number of slices, and the index below that number"));
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::node
