#include <algorithm>
#include <cmath>
#include <limits>

#include "client/cpp/reference/reference_moe.h"
#include "common/base/check.h"

namespace expertmesh {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float RoundTo(DType dtype, float value) {
  switch (dtype) {
    case DType::kBF16:
      return FloatFromBF16(BF16FromFloat(value));
    case DType::kF16:
      return FloatFromF16(F16FromFloat(value));
    default:
      return value;
  }
}

void Softmax(std::vector<float>* values) {
  const float largest = *std::max_element(values->begin(), values->end());
  double sum = 0.0;
  for (const float value : *values) {
    sum += std::exp(static_cast<double>(value) - largest);
  }
  for (float& value : *values) {
    value = static_cast<float>(std::exp(static_cast<double>(value) - largest) / sum);
  }
}

std::vector<float> Scores(ScoreFunction function, std::vector<float> logits) {
  if (function == ScoreFunction::kSoftmax) {
    Softmax(&logits);
  } else if (function == ScoreFunction::kSigmoid) {
    for (float& value : logits) {
      value = static_cast<float>(1.0 / (1.0 + std::exp(-static_cast<double>(value))));
    }
  }
  return logits;
}

// The `count` largest, largest first; the lower index first among equals.
struct Selection {
  std::vector<uint32_t> ids;
  // Distance to the largest value left out.
  float margin = kInfinity;
};

Selection SelectLargest(absl::Span<const float> values, size_t count) {
  Selection selection;
  std::vector<bool> taken(values.size(), false);
  const auto largest_left = [&] {
    size_t best = values.size();
    for (size_t i = 0; i < values.size(); ++i) {
      if (!taken[i] && (best == values.size() || values[i] > values[best])) {
        best = i;
      }
    }
    return best;
  };
  for (size_t n = 0; n < count; ++n) {
    const size_t best = largest_left();
    taken[best] = true;
    selection.ids.push_back(static_cast<uint32_t>(best));
  }
  const size_t left_out = largest_left();
  if (left_out < values.size()) {
    selection.margin = values[selection.ids.back()] - values[left_out];
  }
  return selection;
}

float GroupValue(GroupScore score, absl::Span<const float> choices) {
  if (score == GroupScore::kMax) {
    return *std::max_element(choices.begin(), choices.end());
  }
  const Selection top = SelectLargest(choices, 2);
  return choices[top.ids[0]] + choices[top.ids[1]];
}

// Gives the experts of all but the best groups `masked_choice`. Returns the margin between groups.
float LimitGroups(const RoutingOptions& routing, std::vector<float>* choices) {
  if (routing.n_group <= 1) {
    return kInfinity;
  }
  const size_t size = routing.num_experts / routing.n_group;
  std::vector<float> groups;
  for (size_t group = 0; group < routing.n_group; ++group) {
    groups.push_back(
        GroupValue(routing.group_score, absl::MakeConstSpan(*choices).subspan(group * size, size)));
  }
  const Selection kept = SelectLargest(groups, routing.topk_group);
  for (size_t expert = 0; expert < choices->size(); ++expert) {
    if (std::find(kept.ids.begin(), kept.ids.end(), expert / size) == kept.ids.end()) {
      (*choices)[expert] = routing.masked_choice;
    }
  }
  return kept.margin;
}

}  // namespace

ReferenceRouting RouteReference(const RoutingOptions& routing, DType model_dtype,
                                absl::Span<const float> logits, absl::Span<const float> select_bias,
                                bool round_like_model) {
  EXPERTMESH_CHECK(logits.size() == routing.num_experts);
  EXPERTMESH_CHECK(!routing.select_bias || select_bias.size() == routing.num_experts);
  std::vector<float> scores(logits.begin(), logits.end());
  if (round_like_model && routing.logit_dtype == LogitDType::kModel) {
    for (float& logit : scores) {
      logit = RoundTo(model_dtype, logit);
    }
  }
  if (routing.scope == ScoreScope::kAll) {
    scores = Scores(routing.score, std::move(scores));
  }
  std::vector<float> choices = scores;
  if (routing.select_bias) {
    for (size_t expert = 0; expert < choices.size(); ++expert) {
      choices[expert] += select_bias[expert];
    }
  }
  const float group_margin = LimitGroups(routing, &choices);
  const Selection selection = SelectLargest(choices, routing.top_k);

  ReferenceRouting result;
  result.expert_ids = selection.ids;
  result.margin = std::min(group_margin, selection.margin);
  result.tie = result.margin == 0.0f;
  for (const uint32_t expert : selection.ids) {
    result.weights.push_back(scores[expert]);
  }
  if (routing.scope == ScoreScope::kSelected) {
    result.weights = Scores(routing.score, std::move(result.weights));
  }
  float divisor = 1.0f;
  if (routing.renormalise == Renormalise::kSum) {
    divisor = routing.renormalise_epsilon;
    for (const float weight : result.weights) {
      divisor += weight;
    }
  }
  for (float& weight : result.weights) {
    weight = weight / divisor * routing.scale;
    if (round_like_model && routing.weight_dtype == WeightDType::kModel) {
      weight = RoundTo(model_dtype, weight);
    }
  }
  return result;
}

}  // namespace expertmesh
