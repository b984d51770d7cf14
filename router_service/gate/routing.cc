#include "router_service/gate/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "router_service/gate/row_kernels.h"

namespace expertmesh {
namespace {

template <typename T>
void GrowTo(std::vector<T>* buffer, size_t size) {
  if (buffer->size() < size) {
    buffer->resize(size);
  }
}

bool HasGroupLimit(const RoutingOptions& options) { return options.topk_group < options.n_group; }

absl::Status ValidateGroups(const RoutingOptions& options) {
  if (options.n_group == 0 || options.num_experts % options.n_group != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("n_group is ", options.n_group,
                     "; it must be at least 1 and divide num_experts (", options.num_experts, ")"));
  }
  if (options.topk_group == 0 || options.topk_group > options.n_group) {
    return absl::InvalidArgumentError(absl::StrCat("topk_group is ", options.topk_group,
                                                   "; it must be from 1 to n_group (",
                                                   options.n_group, ")"));
  }
  const uint32_t group_size = options.num_experts / options.n_group;
  const uint64_t left = uint64_t{options.topk_group} * group_size;
  if (options.top_k > left) {
    return absl::InvalidArgumentError(absl::StrCat(
        "top_k is ", options.top_k, " but topk_group (", options.topk_group, ") groups of ",
        group_size, " leave ", left, " experts to choose from; raise topk_group or lower top_k"));
  }
  if (!HasGroupLimit(options)) {
    return absl::OkStatus();
  }
  if (options.group_score == GroupScore::kTopTwoSum && group_size < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "group_score sums the two best of a group but n_group (", options.n_group,
        ") leaves groups of ", group_size, "; lower n_group or rank by the best alone"));
  }
  const float mask = options.masked_choice;
  if (mask != 0.0f && mask != -std::numeric_limits<float>::infinity()) {
    return absl::InvalidArgumentError(
        absl::StrCat("masked_choice is ", mask, "; it must be 0 or minus infinity"));
  }
  return absl::OkStatus();
}

// Rank of every group, larger is better. A NaN in a group makes it the best.
void ScoreGroups(GroupScore score, absl::Span<const float> choice, absl::Span<float> groups) {
  const size_t size = choice.size() / groups.size();
  if (score == GroupScore::kTopTwoSum) {
    BestRowKernels().top_two_sums(choice.data(), groups.size(), size, groups.data());
    return;
  }
  for (size_t group = 0; group < groups.size(); ++group) {
    float best = choice[group * size];
    for (const float value : choice.subspan(group * size, size)) {
      best = value > best || std::isnan(value) ? value : best;
    }
    groups[group] = best;
  }
}

void RouteRow(const RoutingOptions& options, TieOrder ties, DType model_dtype, const float* logits,
              absl::Span<const float> select_bias, RoutingScratch* scratch,
              absl::Span<uint32_t> ids, absl::Span<float> weights) {
  const size_t experts = options.num_experts;
  const absl::Span<float> scores(scratch->scores.data(), experts);
  std::copy_n(logits, experts, scores.data());
  if (options.scope == ScoreScope::kAll) {
    ScoreRow(options.score, scores.data(), experts);
  }
  // Without a bias the choice is the score itself, and what the group limit masks is masked as a
  // weight too (DeepSeek-V2); with one, weights come from the scores as they were (DeepSeek-V3).
  absl::Span<float> choice = scores;
  if (options.select_bias) {
    choice = absl::MakeSpan(scratch->choice.data(), experts);
    AddSelectBias(scores, select_bias, choice);
  }
  LimitGroups(options, ties, choice, scratch);
  SelectTopK(choice, ties, options.sorted_selection, &scratch->selection, ids);
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    weights[slot] = scores[ids[slot]];
  }
  if (options.scope == ScoreScope::kSelected) {
    std::copy(weights.begin(), weights.end(), scratch->selected.begin());
    ScoreRow(options.score, scratch->selected.data(), weights.size());
    std::copy_n(scratch->selected.begin(), weights.size(), weights.begin());
  }
  FinishWeights(options, model_dtype, weights);
}

}  // namespace

absl::Status ValidateRouting(const RoutingOptions& options) {
  if (options.num_experts == 0) {
    return absl::InvalidArgumentError("num_experts is 0; it must be at least 1");
  }
  if (options.top_k == 0 || options.top_k > options.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat("top_k is ", options.top_k,
                                                   "; it must be from 1 to num_experts (",
                                                   options.num_experts, ")"));
  }
  RETURN_IF_ERROR(ValidateGroups(options));
  if (!std::isfinite(options.renormalise_epsilon) || options.renormalise_epsilon < 0.0f) {
    return absl::InvalidArgumentError(absl::StrCat("renormalise_epsilon is ",
                                                   options.renormalise_epsilon,
                                                   "; it must be finite and not negative"));
  }
  if (!std::isfinite(options.scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("scale is ", options.scale, "; it must be finite"));
  }
  return absl::OkStatus();
}

void ScoreRow(ScoreFunction score, float* row, size_t count) {
  switch (score) {
    case ScoreFunction::kIdentity:
      return;
    case ScoreFunction::kSoftmax:
      return BestRowKernels().softmax(row, count);
    case ScoreFunction::kSigmoid:
      return BestRowKernels().sigmoid(row, count);
    case ScoreFunction::kSqrtSoftplus:
      for (size_t i = 0; i < count; ++i) {
        // ln(1 + e^z) without overflow.
        row[i] = std::sqrt(std::max(row[i], 0.0f) + std::log1p(std::exp(-std::fabs(row[i]))));
      }
      return;
  }
}

void AddSelectBias(absl::Span<const float> scores, absl::Span<const float> bias,
                   absl::Span<float> choice) {
  EXPERTMESH_CHECK(bias.size() == scores.size() && choice.size() == scores.size());
  for (size_t expert = 0; expert < scores.size(); ++expert) {
    choice[expert] = scores[expert] + bias[expert];
  }
}

void LimitGroups(const RoutingOptions& options, TieOrder ties, absl::Span<float> choice,
                 RoutingScratch* scratch) {
  if (!HasGroupLimit(options)) {
    return;
  }
  GrowTo(&scratch->group_scores, options.n_group);
  GrowTo(&scratch->kept_groups, options.topk_group);
  scratch->group_is_kept.assign(options.n_group, 0);
  const absl::Span<float> groups(scratch->group_scores.data(), options.n_group);
  const absl::Span<uint32_t> kept(scratch->kept_groups.data(), options.topk_group);
  ScoreGroups(options.group_score, choice, groups);
  SelectTopK(groups, ties, /*sorted=*/false, &scratch->selection, kept);
  for (const uint32_t group : kept) {
    scratch->group_is_kept[group] = 1;
  }
  const size_t size = choice.size() / options.n_group;
  for (size_t group = 0; group < options.n_group; ++group) {
    if (scratch->group_is_kept[group] == 0) {
      std::fill_n(choice.begin() + group * size, size, options.masked_choice);
    }
  }
}

void FinishWeights(const RoutingOptions& options, DType model_dtype, absl::Span<float> weights) {
  if (options.renormalise == Renormalise::kSum) {
    float sum = 0.0f;
    for (const float weight : weights) {
      sum += weight;
    }
    sum += options.renormalise_epsilon;
    for (float& weight : weights) {
      weight /= sum;
    }
  }
  for (float& weight : weights) {
    weight *= options.scale;
  }
  if (options.weight_dtype == WeightDType::kModel) {
    RoundTo(model_dtype, weights);
  }
}

void RoundTo(DType dtype, absl::Span<float> values) {
  switch (dtype) {
    case DType::kBF16:
      for (float& value : values) {
        value = FloatFromBF16(BF16FromFloat(value));
      }
      return;
    case DType::kF16:
      for (float& value : values) {
        value = FloatFromF16(F16FromFloat(value));
      }
      return;
    default:
      EXPERTMESH_CHECK(dtype == DType::kF32);
  }
}

void RouteTokens(const RoutingOptions& options, TieOrder ties, DType model_dtype,
                 absl::Span<const float> logits, absl::Span<const float> select_bias, size_t tokens,
                 absl::Span<uint32_t> expert_ids, absl::Span<float> weights,
                 RoutingScratch* scratch) {
  const size_t experts = options.num_experts;
  const size_t k = options.top_k;
  EXPERTMESH_CHECK(logits.size() == tokens * experts);
  EXPERTMESH_CHECK(expert_ids.size() == tokens * k && weights.size() == tokens * k);
  EXPERTMESH_CHECK(!options.select_bias || select_bias.size() == experts);
  GrowTo(&scratch->scores, PaddedRow(experts));
  GrowTo(&scratch->choice, PaddedRow(experts));
  GrowTo(&scratch->selected, PaddedRow(k));
  for (size_t token = 0; token < tokens; ++token) {
    RouteRow(options, ties, model_dtype, logits.data() + token * experts, select_bias, scratch,
             expert_ids.subspan(token * k, k), weights.subspan(token * k, k));
  }
}

}  // namespace expertmesh
