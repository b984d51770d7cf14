#include "client/cpp/reference/reference_routing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/reference/reference_capacity.h"
#include "client/cpp/reference/reference_choice.h"
#include "client/cpp/reference/reference_scores.h"
#include "common/base/check.h"

namespace expertmesh::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const char* NameOf(Noise noise) {
  switch (noise) {
    case Noise::kGumbel:
      return "gumbel";
    case Noise::kNormal:
      return "normal";
    case Noise::kLearnedNormal:
      return "learned_normal";
    case Noise::kJitter:
      return "jitter";
    default:
      return "none";
  }
}

// The routing of one group, step by step.
class GroupRouter {
 public:
  GroupRouter(const RoutingOptions& routing, const ReferenceGroup& group)
      : routing_(routing), group_(group), tokens_(group.logits.size() / routing.num_experts) {
    EXPERTMESH_CHECK(group.logits.size() == tokens_.size() * routing.num_experts);
    EXPERTMESH_CHECK(!routing.select_bias || group.select_bias.size() == routing.num_experts);
    EXPERTMESH_CHECK(routing.choice != Choice::kHash || group.token_ids.size() == tokens_.size());
  }

  std::vector<ReferenceRouting> Route() {
    float shared_margin = kInfinity;
    for (size_t token = 0; token < tokens_.size(); ++token) {
      Score(token);
      Choose(token);
    }
    if (routing_.choice == Choice::kExpertChoice) {
      shared_margin = LetExpertsChoose(routing_, absl::MakeSpan(tokens_));
    }
    if (!routing_.renormalise_after_drop) {
      RenormaliseAll();
    }
    if (routing_.choice != Choice::kExpertChoice && !routing_.capacity.unlimited()) {
      shared_margin = DropBeyondCapacity(routing_, absl::MakeSpan(tokens_));
    }
    if (routing_.renormalise_after_drop) {
      RenormaliseAll();
    }
    if (routing_.looks_at_groups()) {
      ShareMargin(shared_margin);
    }
    std::vector<ReferenceRouting> result;
    for (TokenState& token : tokens_) {
      result.push_back(Finish(&token));
    }
    return result;
  }

 private:
  Dtype LogitType() const { return TypeOf(routing_.logit_dtype == LogitDtype::kModel); }
  Dtype ScoreType() const { return TypeOf(routing_.score_dtype == ScoreDtype::kModel); }
  Dtype TypeOf(bool model) const { return model ? group_.activation_dtype : Dtype::kF32; }

  std::vector<float> RoundedScores(std::vector<float> logits) const {
    std::vector<float> scores = ReferenceScores(routing_.score, std::move(logits));
    for (float& score : scores) {
      score = RoundReference(ScoreType(), score);
    }
    return scores;
  }

  // Logits, temperature, scores, bias.
  void Score(size_t index) {
    TokenState& token = tokens_[index];
    for (size_t expert = 0; expert < routing_.num_experts; ++expert) {
      const float logit = group_.logits[index * routing_.num_experts + expert];
      token.logits.push_back(RoundReference(LogitType(), logit) / routing_.temperature);
    }
    token.scores = routing_.scope == ScoreScope::kAll ? RoundedScores(token.logits) : token.logits;
    token.choices = token.scores;
    if (routing_.select_bias) {
      for (size_t expert = 0; expert < routing_.num_experts; ++expert) {
        token.choices[expert] += group_.select_bias[expert];
      }
    }
  }

  // Group limit, choice and weights of one token (of all but expert choice).
  void Choose(size_t index) {
    TokenState& token = tokens_[index];
    token.margin = kInfinity;
    switch (routing_.choice) {
      case Choice::kTopK: {
        const float group_margin = LimitGroups(routing_, &token.choices);
        const Largest chosen = SelectLargest(token.choices, routing_.top_k);
        token.ids = chosen.ids;
        token.margin = std::min(group_margin, chosen.margin);
        for (const uint32_t expert : token.ids) {
          token.weights.push_back(token.scores[expert]);
        }
        if (routing_.scope == ScoreScope::kSelected) {
          token.weights = RoundedScores(std::move(token.weights));
        }
        break;
      }
      case Choice::kSparseMixer: {
        SparseMix mix = MixSparsely(routing_, LogitType(), token.logits);
        token.ids = std::move(mix.ids);
        token.weights = std::move(mix.weights);
        token.margin = mix.margin;
        break;
      }
      case Choice::kHash:
        token.ids = {group_.token_ids[index] % routing_.num_experts};
        token.weights = {1.0f};
        break;
      case Choice::kExpertChoice:
        return;
    }
    token.best_weight = *std::max_element(token.weights.begin(), token.weights.end());
  }

  void RenormaliseAll() {
    for (TokenState& token : tokens_) {
      if (token.weights.empty() || routing_.renormalise == Renormalise::kNone) {
        continue;
      }
      const double divisor = RenormaliseDivisor(routing_, group_.activation_dtype, token.weights);
      for (float& weight : token.weights) {
        weight = static_cast<float>(weight / divisor);
      }
    }
  }

  // What is decided for one token may decide for any other.
  void ShareMargin(float margin) {
    for (const TokenState& token : tokens_) {
      margin = std::min(margin, token.margin);
    }
    for (TokenState& token : tokens_) {
      token.margin = margin;
    }
  }

  // Scale and weight dtype, best expert first.
  ReferenceRouting Finish(TokenState* token) const {
    std::vector<size_t> order(token->ids.size());
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    if (routing_.choice == Choice::kExpertChoice) {
      std::stable_sort(order.begin(), order.end(), [token](size_t left, size_t right) {
        return token->weights[left] > token->weights[right];
      });
    }
    ReferenceRouting result;
    for (const size_t i : order) {
      const float weight = RoundReference(TypeOf(routing_.weight_dtype == WeightDtype::kModel),
                                          token->weights[i] * routing_.scale);
      result.expert_ids.push_back(token->ids[i]);
      result.weights.push_back(weight);
    }
    result.dropped = std::move(token->dropped);
    result.margin = token->margin;
    result.tie = result.margin == 0.0f;
    return result;
  }

  const RoutingOptions& routing_;
  const ReferenceGroup& group_;
  std::vector<TokenState> tokens_;
};

bool Contains(const std::vector<uint32_t>& ids, uint32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool SameSet(std::vector<uint32_t> left, std::vector<uint32_t> right) {
  std::sort(left.begin(), left.end());
  std::sort(right.begin(), right.end());
  return left == right;
}

}  // namespace

std::string RandomPart(const RoutingOptions& routing) {
  if (routing.noise != Noise::kNone) {
    return absl::StrCat("noise = ", NameOf(routing.noise));
  }
  if (routing.second_expert != SecondExpert::kAlways && routing.choice != Choice::kExpertChoice &&
      routing.top_k > 1) {
    return absl::StrCat("second_expert = ",
                        routing.second_expert == SecondExpert::kSampled ? "sampled" : "random");
  }
  return "";
}

std::vector<ReferenceRouting> RouteReference(const RoutingOptions& routing,
                                             const ReferenceGroup& group) {
  EXPERTMESH_CHECK(RandomPart(routing).empty());
  return GroupRouter(routing, group).Route();
}

bool RoundingExplains(const RoutingOptions& routing, const ReferenceGroup& group,
                      absl::Span<const ReferenceRouting> routed,
                      absl::Span<const TokenExperts> reported) {
  const size_t experts = routing.num_experts;
  std::vector<float> nudged(group.logits.begin(), group.logits.end());
  for (size_t token = 0; token < reported.size(); ++token) {
    const absl::Span<float> row = absl::MakeSpan(nudged).subspan(token * experts, experts);
    float largest = 1.0f;
    for (const float logit : row) {
      largest = std::max(largest, std::fabs(logit));
    }
    // Well above the error of a float32 sum of some thousand products, far below what matters.
    const float nudge = largest * 4e-6f;
    for (uint32_t expert = 0; expert < experts; ++expert) {
      const bool theirs = Contains(reported[token].expert_ids, expert);
      const bool ours = Contains(routed[token].expert_ids, expert);
      row[expert] += theirs == ours ? 0.0f : theirs ? nudge : -nudge;
    }
  }
  ReferenceGroup moved = group;
  moved.logits = nudged;
  const std::vector<ReferenceRouting> again = RouteReference(routing, moved);
  for (size_t token = 0; token < reported.size(); ++token) {
    if (!SameSet(again[token].expert_ids, reported[token].expert_ids)) {
      return false;
    }
  }
  return true;
}

}  // namespace expertmesh::reference
