#include "common/checkpoint/ignored_weights.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/families.h"
#include "common/json/json_text.h"

namespace expertmesh::checkpoint {

absl::Status CheckNothingIgnored(const ModelLayout& layout, const MoeLayerDescription& layer,
                                 const Storage& storage, const std::string& prefix,
                                 const SafetensorsReader& tensors) {
  // `name` is a name of Storage that this layer has no use for.
  const auto check = [&](absl::string_view name, uint32_t expert, absl::string_view what,
                         absl::string_view why) {
    const std::string full = TensorName(prefix, name, expert);
    if (name.empty() || !tensors.Knows(full)) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat(
        tensors.PlaceOf(full), ": tensor ", Quoted(full), " would be ignored: layer ", layer.layer,
        " has ", what, " by config.json", why.empty() ? "" : absl::StrCat(" (", why, ")"),
        ". Correct config.json, or remove such tensors"));
  };
  const WhyAbsent& why = layout.family->why_absent;
  if (layer.shared_intermediate_size == 0) {
    for (const TensorPlace& place : {storage.shared.gate, storage.shared.up, storage.shared.down}) {
      RETURN_IF_ERROR(check(place.name, 0, "no shared experts", why.shared_experts));
    }
  }
  if (!layer.routing.select_bias) {
    RETURN_IF_ERROR(check(storage.select_bias, 0, "no bias for selection", why.select_bias));
  }
  if (!layer.routing.logit_bias) {
    RETURN_IF_ERROR(check(storage.logit_bias, 0, "no bias of the logits", why.logit_bias));
  }
  // Where experts share a tensor its shape says how many there are.
  if (storage.experts.up.stacking == Stacking::kPerExpert) {
    const uint32_t experts = layer.routing.num_experts;
    RETURN_IF_ERROR(check(storage.experts.up.name, experts, absl::StrCat(experts, " experts"), ""));
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::checkpoint
