#include "common/gate/validate_routing.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"

namespace expertmesh::gate {
namespace {

template <typename... Parts>
absl::Status Wrong(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

bool HasGroupLimit(const RoutingOptions& options) { return options.topk_group < options.n_group; }

absl::Status CheckNumber(absl::string_view name, float value, bool may_be_zero) {
  if (!std::isfinite(value) || value < 0.0f || (value == 0.0f && !may_be_zero)) {
    return Wrong(name, " is ", value, "; it must be finite and ",
                 may_be_zero ? "not negative" : "above 0");
  }
  return absl::OkStatus();
}

absl::Status ValidateNumbers(const RoutingOptions& options) {
  RETURN_IF_ERROR(CheckNumber("temperature", options.temperature, false));
  RETURN_IF_ERROR(CheckNumber("noise_scale", options.noise_scale, true));
  RETURN_IF_ERROR(CheckNumber("sparse_mixer_epsilon", options.sparse_mixer_epsilon, true));
  RETURN_IF_ERROR(CheckNumber("second_expert_threshold", options.second_expert_threshold, false));
  RETURN_IF_ERROR(CheckNumber("renormalise_epsilon", options.renormalise_epsilon, true));
  RETURN_IF_ERROR(CheckNumber("renormalise_p", options.renormalise_p, false));
  RETURN_IF_ERROR(CheckNumber("capacity_factor", options.capacity.factor, true));
  if (!std::isfinite(options.scale)) {
    return Wrong("scale is ", options.scale, "; it must be finite");
  }
  if (options.noise == Noise::kJitter && options.noise_scale > 1.0f) {
    return Wrong("noise_scale is ", options.noise_scale,
                 "; of jitter it must be at most 1, or hidden states change their sign");
  }
  return absl::OkStatus();
}

absl::Status ValidateGroups(const RoutingOptions& options) {
  if (options.n_group == 0 || options.num_experts % options.n_group != 0) {
    return Wrong("n_group is ", options.n_group, "; it must be at least 1 and divide num_experts (",
                 options.num_experts, ")");
  }
  if (options.topk_group == 0 || options.topk_group > options.n_group) {
    return Wrong("topk_group is ", options.topk_group, "; it must be from 1 to n_group (",
                 options.n_group, ")");
  }
  if (!HasGroupLimit(options)) {
    return absl::OkStatus();
  }
  if (options.choice != Choice::kTopK || options.second_expert == SecondExpert::kSampled) {
    return Wrong("topk_group is ", options.topk_group, " of n_group ", options.n_group,
                 " but groups of experts limit choice = top_k with second_expert = always or "
                 "random only; set n_group and topk_group to 1");
  }
  const uint32_t group_size = options.num_experts / options.n_group;
  const uint64_t left = uint64_t{options.topk_group} * group_size;
  if (options.top_k > left) {
    return Wrong("top_k is ", options.top_k, " but topk_group (", options.topk_group,
                 ") groups of ", group_size, " leave ", left,
                 " experts to choose from; raise topk_group or lower top_k");
  }
  if (options.group_score == GroupScore::kTopTwoSum && group_size < 2) {
    return Wrong("group_score sums the two best of a group but n_group (", options.n_group,
                 ") leaves groups of ", group_size, "; lower n_group or rank by the best alone");
  }
  const float mask = options.masked_choice;
  if (mask != 0.0f && mask != -std::numeric_limits<float>::infinity()) {
    return Wrong("masked_choice is ", mask, "; it must be 0 or minus infinity");
  }
  return absl::OkStatus();
}

absl::Status ValidateChoice(const RoutingOptions& options) {
  switch (options.choice) {
    case Choice::kTopK:
      break;
    case Choice::kSparseMixer:
      if (options.top_k != 2) {
        return Wrong("top_k is ", options.top_k, " with choice = sparse_mixer; it must be 2");
      }
      if (options.second_expert == SecondExpert::kSampled) {
        return Wrong(
            "second_expert is sampled with choice = sparse_mixer, which chooses both "
            "experts itself; use always or random");
      }
      break;
    case Choice::kExpertChoice:
      if (options.capacity.unlimited()) {
        return Wrong(
            "capacity_factor is 0 with choice = expert_choice: how many tokens does an "
            "expert take? Set capacity_tokens or capacity_factor");
      }
      if (options.scope == ScoreScope::kSelected) {
        return Wrong(
            "scope is selected with choice = expert_choice, where a token selects "
            "nothing; use all");
      }
      if (options.second_expert != SecondExpert::kAlways) {
        return Wrong(
            "second_expert is set with choice = expert_choice, where a token has no "
            "second expert; use always");
      }
      return absl::OkStatus();  // top_k plays no part.
    case Choice::kHash:
      if (options.top_k != 1) {
        return Wrong("top_k is ", options.top_k, " with choice = hash; it must be 1");
      }
      break;
  }
  if (options.top_k == 0 || options.top_k > options.num_experts) {
    return Wrong("top_k is ", options.top_k, "; it must be from 1 to num_experts (",
                 options.num_experts, ")");
  }
  if (options.second_expert != SecondExpert::kAlways && options.top_k < 2) {
    return Wrong("second_expert is set but top_k is ", options.top_k,
                 "; there is no second expert: use always, or raise top_k");
  }
  return absl::OkStatus();
}

absl::Status ValidateCapacity(const RoutingOptions& options) {
  const CapacityOptions& capacity = options.capacity;
  if (capacity.unlimited() && capacity.minimum > 0) {
    return Wrong("capacity_minimum is ", capacity.minimum,
                 " but capacity is unlimited; set capacity_factor, or leave capacity_minimum out");
  }
  if (capacity.drop != DropPolicy::kNextBest || options.choice == Choice::kExpertChoice) {
    return absl::OkStatus();
  }
  if (capacity.unlimited()) {
    return Wrong(
        "drop is next_best but capacity is unlimited, so nothing is dropped; set "
        "capacity_tokens or capacity_factor, or leave drop out");
  }
  if (options.choice != Choice::kTopK || options.scope == ScoreScope::kSelected) {
    return Wrong(
        "drop is next_best, which needs choice = top_k and scope = all: without scores "
        "of all experts no expert is next best");
  }
  if (options.renormalise != Renormalise::kNone && !options.renormalise_after_drop) {
    return Wrong(
        "drop is next_best, and weights are renormalised before anybody knows which "
        "experts a token gets; set renormalise_after_drop = true");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRouting(const RoutingOptions& options) {
  if (options.num_experts == 0) {
    return Wrong("num_experts is 0; it must be at least 1");
  }
  RETURN_IF_ERROR(ValidateNumbers(options));
  RETURN_IF_ERROR(ValidateChoice(options));
  RETURN_IF_ERROR(ValidateGroups(options));
  return ValidateCapacity(options);
}

}  // namespace expertmesh::gate
