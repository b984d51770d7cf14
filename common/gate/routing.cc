#include "common/gate/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/check.h"
#include "common/gate/routing_steps.h"
#include "common/gate/row_kernels.h"
#include "common/gate/sparse_mixer.h"
#include "common/gate/weights.h"

namespace expertmesh::gate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <typename T>
void GrowTo(std::vector<T>* buffer, size_t size) {
  if (buffer->size() < size) {
    buffer->resize(size);
  }
}

// A token may get fewer than top_k experts.
bool MayBeRagged(const RoutingOptions& options) {
  return !options.capacity.unlimited() || options.second_expert == SecondExpert::kRandom;
}

bool NeedsChoices(const RoutingOptions& options) {
  return options.capacity.drop == DropPolicy::kNextBest;
}

// One batch on its way through the steps.
class Batch {
 public:
  Batch(const RoutingRules& rules, const RoutingInput& input, RoutingScratch* scratch,
        RoutedTokens* routed)
      : rules_(rules),
        options_(rules.options),
        experts_(rules.options.num_experts),
        k_(rules.options.top_k),
        input_(input),
        scratch_(scratch),
        routed_(routed) {}

  void Route() {
    Prepare();
    size_t first = 0;
    for (const RequestTokens& request : input_.requests) {
      for (size_t token = 0; token < request.tokens; ++token) {
        RouteToken(request, token, first + token);
      }
      ForEachGroup(request, first, [this](size_t begin, size_t end) { RouteGroup(begin, end); });
      first += request.tokens;
    }
    if (options_.choice != Choice::kExpertChoice && MayBeRagged(options_)) {
      RemoveEmptySlots();
    }
    if (!finished_by_token_) {
      FinishAll();
    }
  }

 private:
  void Prepare() {
    size_t tokens = 0;
    for (const RequestTokens& request : input_.requests) {
      tokens += request.tokens;
    }
    const bool expert_choice = options_.choice == Choice::kExpertChoice;
    EXPERTMESH_CHECK(options_.choice == Choice::kHash || input_.logits.size() == tokens * experts_);
    EXPERTMESH_CHECK(!options_.select_bias || input_.select_bias.checkpoint.size() == experts_);
    EXPERTMESH_CHECK(input_.select_bias.live.empty() || input_.select_bias.live.size() == experts_);
    finished_by_token_ = !expert_choice && !MayBeRagged(options_);
    const bool noisy = options_.noise != Noise::kNone && options_.noise != Noise::kJitter;
    adjusts_logits_ = options_.temperature != 1.0f || noisy;
    GrowTo(&scratch_->token.logits, PaddedRow(experts_));
    GrowTo(&scratch_->token.scores, PaddedRow(experts_));
    GrowTo(&scratch_->token.choice, PaddedRow(experts_));
    GrowTo(&scratch_->token.checkpoint_choice, PaddedRow(experts_));
    GrowTo(&scratch_->token.selected, PaddedRow(k_));
    if (options_.capacity.drop == DropPolicy::kBatchPrioritised) {
      GrowTo(&scratch_->best_scores, tokens);
    }
    if (expert_choice || NeedsChoices(options_)) {
      GrowTo(&scratch_->all_scores, tokens * experts_);
    }
    if (NeedsChoices(options_)) {
      GrowTo(&scratch_->all_choices, tokens * experts_);
    }
    routed_->dropped.clear();
    routed_->dropped_mass = 0;
    routed_->compared = 0;
    routed_->changed = 0;
    if (expert_choice) {
      routed_->expert_ids.clear();
      routed_->weights.clear();
      routed_->token_begin.assign(1, 0);
      return;
    }
    routed_->expert_ids.resize(tokens * k_);
    routed_->weights.resize(tokens * k_);
    routed_->token_begin.resize(tokens + 1);
    for (size_t token = 0; token <= tokens; ++token) {
      routed_->token_begin[token] = static_cast<uint32_t>(token * k_);
    }
  }

  template <typename Visit>
  static void ForEachGroup(const RequestTokens& request, size_t first, const Visit& visit) {
    if (request.group_sizes.empty()) {
      visit(first, first + request.tokens);
      return;
    }
    for (const uint32_t size : request.group_sizes) {
      visit(first, first + size);
      first += size;
    }
  }

  // `token`: in its request; `row`: in the batch.
  void RouteToken(const RequestTokens& request, size_t token, size_t row) {
    const RandomKey key{request.seed, token};
    if (options_.choice == Choice::kExpertChoice) {
      Score(AdjustedLogits(key, row));
      std::copy_n(scratch_->token.scores.begin(), experts_,
                  scratch_->all_scores.begin() + row * experts_);
      return;
    }
    const absl::Span<uint32_t> ids(routed_->expert_ids.data() + row * k_, k_);
    const absl::Span<float> weights(routed_->weights.data() + row * k_, k_);
    switch (options_.choice) {
      case Choice::kHash:
        ids[0] = request.token_ids[token] % options_.num_experts;
        weights[0] = 1.0f;
        break;
      case Choice::kSparseMixer: {
        const Dtype rounding =
            options_.logit_dtype == LogitDtype::kModel ? rules_.activation_dtype : Dtype::kF32;
        SparseMixer({AdjustedLogits(key, row), experts_}, options_.sparse_mixer_epsilon, rounding,
                    &scratch_->token.scores, ids, weights);
        break;
      }
      default:
        ChooseTopK(key, row, !input_.select_bias.live.empty() && !request.checkpoint_bias, ids,
                   weights);
    }
    FinishToken(key, row, ids, weights);
  }

  // The token's logits with temperature and noise.
  const float* AdjustedLogits(const RandomKey& key, size_t row) {
    const float* logits = input_.logits.data() + row * experts_;
    if (!adjusts_logits_) {
      return logits;
    }
    const absl::Span<float> adjusted(scratch_->token.logits.data(), experts_);
    for (size_t expert = 0; expert < experts_; ++expert) {
      adjusted[expert] = logits[expert] / options_.temperature;
    }
    absl::Span<const float> width;
    if (options_.noise == Noise::kLearnedNormal) {
      width = input_.noise_width.subspan(row * experts_, experts_);
    }
    AddNoise(options_, *rules_.random, key, width, adjusted);
    return adjusted.data();
  }

  // Into scratch_->token.scores.
  void Score(const float* logits) {
    const absl::Span<float> scores(scratch_->token.scores.data(), experts_);
    std::copy_n(logits, experts_, scores.data());
    if (options_.scope == ScoreScope::kAll) {
      ScoreRow(options_.score, scores.data(), experts_);
      RoundScores(scores);
    }
  }

  void RoundScores(absl::Span<float> scores) const {
    if (options_.score_dtype == ScoreDtype::kModel) {
      RoundTo(rules_.activation_dtype, scores);
    }
  }

  // What the checkpoint alone chooses by: `scores` with its bias and its limit of groups, in
  // `room`.
  void CheckpointChoice(absl::Span<const float> scores, absl::Span<float> room) {
    if (options_.select_bias) {
      AddSelectBias(scores, input_.select_bias.checkpoint, room);
    } else if (room.data() != scores.data()) {
      std::copy_n(scores.begin(), experts_, room.begin());
    }
    LimitGroups(options_, options_.masked_choice, rules_.ties, room, &scratch_->token);
  }

  // The same with the live bias. What is outside the groups is never chosen, whatever the bias.
  void LiveChoice(absl::Span<const float> scores, absl::Span<float> room) {
    AddSelectBias(scores, input_.select_bias.live, room);
    LimitGroups(options_, -kInfinity, rules_.ties, room, &scratch_->token);
  }

  // Whether a live bias made a difference to `ids`, which were chosen with it.
  void Compare(absl::Span<const float> scores, absl::Span<const uint32_t> ids) {
    const absl::Span<float> room(scratch_->token.checkpoint_choice.data(), experts_);
    CheckpointChoice(scores, room);
    ++routed_->compared;
    if (!IsTopK(room, rules_.ties, &scratch_->token.selection, ids)) {
      ++routed_->changed;
    }
  }

  void ChooseTopK(const RandomKey& key, size_t row, bool live, absl::Span<uint32_t> ids,
                  absl::Span<float> weights) {
    const float* logits = AdjustedLogits(key, row);
    Score(logits);
    const absl::Span<float> scores(scratch_->token.scores.data(), experts_);
    // Without a bias the choice is the score itself, and what the group limit masks is masked as a
    // weight too (DeepSeek-V2); with one, weights come from the scores as they were (DeepSeek-V3).
    absl::Span<float> choice = scores;
    if (options_.select_bias || live) {
      choice = absl::MakeSpan(scratch_->token.choice.data(), experts_);
    }
    if (live) {
      LiveChoice(scores, choice);
    } else {
      CheckpointChoice(scores, choice);
    }
    const bool sampled = options_.second_expert == SecondExpert::kSampled;
    const absl::Span<uint32_t> chosen = sampled ? ids.first(1) : ids;
    SelectTopK(choice, rules_.ties, sampled || options_.sorted_selection,
               &scratch_->token.selection, chosen);
    if (live) {
      Compare(scores, chosen);
    }
    if (sampled) {
      SampleSecondExperts(*rules_.random, key, rules_.ties, {logits, experts_}, &scratch_->token,
                          ids);
    }
    for (size_t slot = 0; slot < k_; ++slot) {
      weights[slot] = scores[ids[slot]];
    }
    if (options_.scope == ScoreScope::kSelected) {
      std::copy_n(weights.begin(), k_, scratch_->token.selected.begin());
      ScoreRow(options_.score, scratch_->token.selected.data(), k_);
      std::copy_n(scratch_->token.selected.begin(), k_, weights.begin());
      RoundScores(weights);
    }
    if (NeedsChoices(options_)) {
      std::copy_n(scores.begin(), experts_, scratch_->all_scores.begin() + row * experts_);
      std::copy_n(choice.begin(), experts_, scratch_->all_choices.begin() + row * experts_);
    }
  }

  // What follows the choice and needs no other token.
  void FinishToken(const RandomKey& key, size_t row, absl::Span<uint32_t> ids,
                   absl::Span<float> weights) {
    if (options_.capacity.drop == DropPolicy::kBatchPrioritised) {
      scratch_->best_scores[row] = *std::max_element(weights.begin(), weights.end());
    }
    if (options_.second_expert == SecondExpert::kRandom) {
      GiveUpSecondExperts(key, row, ids, weights);
    }
    if (!options_.renormalise_after_drop) {
      RenormaliseWeights(options_, rules_.activation_dtype, weights);
    }
    if (finished_by_token_) {
      if (options_.renormalise_after_drop) {
        RenormaliseWeights(options_, rules_.activation_dtype, weights);
      }
      ScaleWeights(options_, rules_.activation_dtype, weights);
    }
  }

  void GiveUpSecondExperts(const RandomKey& key, size_t row, absl::Span<uint32_t> ids,
                           absl::Span<float> weights) {
    const bool remember = NeedsChoices(options_);
    absl::Span<uint32_t> before(scratch_->capacity.wanted.data(), 0);
    if (remember) {
      scratch_->capacity.wanted.assign(ids.begin(), ids.end());
      before = absl::MakeSpan(scratch_->capacity.wanted);
    }
    KeepSecondExpertsAtRandom(options_.second_expert_threshold, *rules_.random, key, weights, ids);
    // An expert given up is no next best one either.
    for (size_t slot = 0; slot < before.size(); ++slot) {
      if (ids[slot] == kNoExpert) {
        scratch_->all_choices[row * experts_ + before[slot]] = -kInfinity;
      }
    }
  }

  // Tokens [begin, end) of the batch.
  void RouteGroup(size_t begin, size_t end) {
    if (begin == end) {
      return;
    }
    const size_t tokens = end - begin;
    if (options_.choice == Choice::kExpertChoice) {
      ChooseTokens(options_, rules_.ties,
                   {scratch_->all_scores.data() + begin * experts_, tokens * experts_},
                   &scratch_->expert_choice, &scratch_->token.selection, routed_);
      return;
    }
    if (options_.capacity.unlimited()) {
      return;
    }
    GroupSlots group;
    group.first_token = begin;
    group.expert_ids = {routed_->expert_ids.data() + begin * k_, tokens * k_};
    group.weights = {routed_->weights.data() + begin * k_, tokens * k_};
    if (options_.capacity.drop == DropPolicy::kBatchPrioritised) {
      group.best_scores = {scratch_->best_scores.data() + begin, tokens};
    }
    if (NeedsChoices(options_)) {
      group.scores = {scratch_->all_scores.data() + begin * experts_, tokens * experts_};
      group.choices = {scratch_->all_choices.data() + begin * experts_, tokens * experts_};
    }
    LimitCapacity(options_, group, &scratch_->capacity, &routed_->dropped,
                  &routed_->dropped_mass);
  }

  void RemoveEmptySlots() {
    uint32_t kept = 0;
    for (size_t token = 0; token < routed_->tokens(); ++token) {
      routed_->token_begin[token] = kept;
      for (size_t at = token * k_; at < (token + 1) * k_; ++at) {
        if (routed_->expert_ids[at] != kNoExpert) {
          routed_->expert_ids[kept] = routed_->expert_ids[at];
          routed_->weights[kept] = routed_->weights[at];
          ++kept;
        }
      }
    }
    routed_->token_begin.back() = kept;
    routed_->expert_ids.resize(kept);
    routed_->weights.resize(kept);
  }

  // Weights of expert choice have not been renormalised yet.
  void FinishAll() {
    const bool renormalise =
        options_.renormalise_after_drop || options_.choice == Choice::kExpertChoice;
    for (size_t token = 0; token < routed_->tokens(); ++token) {
      const uint32_t begin = routed_->token_begin[token];
      const absl::Span<float> weights(routed_->weights.data() + begin,
                                      routed_->token_begin[token + 1] - begin);
      if (renormalise) {
        RenormaliseWeights(options_, rules_.activation_dtype, weights);
      }
      ScaleWeights(options_, rules_.activation_dtype, weights);
    }
  }

  const RoutingRules& rules_;
  const RoutingOptions& options_;
  const size_t experts_;
  const size_t k_;
  const RoutingInput& input_;
  RoutingScratch* const scratch_;
  RoutedTokens* const routed_;
  bool finished_by_token_ = true;
  bool adjusts_logits_ = false;
};

}  // namespace

void RouteTokens(const RoutingRules& rules, const RoutingInput& input, RoutingScratch* scratch,
                 RoutedTokens* routed) {
  Batch(rules, input, scratch, routed).Route();
}

}  // namespace expertmesh::gate
