#include "router_service/balance/score_sample.h"

namespace expertmesh::balance_control {

ScoreSample::ScoreSample(const RoutingOptions& routing)
    : num_experts_(routing.num_experts),
      top_k_(routing.choice == Choice::kTopK ? routing.top_k : 0),
      score_(routing.score),
      scores_(routing.num_experts),
      assignments_(routing.num_experts),
      first_choices_(routing.num_experts) {}

void ScoreSample::Add(absl::Span<const float> logits, const gate::RoutedTokens& routed) {
  const size_t tokens = routed.tokens();
  if (top_k_ == 0 || tokens == 0 || logits.size() < tokens * num_experts_ || !mutex_.TryLock()) {
    return;
  }
  const size_t row = next_row_++ % tokens;
  const uint32_t begin = routed.token_begin[row];
  const uint32_t count = routed.token_begin[row + 1] - begin;
  const uint64_t before = scores_.tokens();
  const absl::Span<const float> row_logits = logits.subspan(row * num_experts_, num_experts_);
  if (score_ == ScoreFunction::kSigmoid) {
    scores_.AddSigmoidLogits(row_logits);
  } else {
    scores_.AddSoftmaxLogits(row_logits);
  }
  if (count > 0 && scores_.tokens() > before) {  // Not left out.
    scores_.AddWeights(absl::MakeConstSpan(routed.expert_ids).subspan(begin, count),
                       absl::MakeConstSpan(routed.weights).subspan(begin, count));
    ++first_choices_[routed.expert_ids[begin]];
    if (count > 1) {
      scores_.AddSecondChoice(routed.expert_ids[begin], routed.expert_ids[begin + 1]);
    }
    for (uint32_t at = begin; at < begin + count; ++at) {
      ++assignments_[routed.expert_ids[at]];
    }
  }
  mutex_.Unlock();
}

void ScoreSample::Take(v1::LayerMeasures* measures) {
  absl::MutexLock lock(&mutex_);
  if (scores_.tokens() == 0) {
    return;
  }
  const balance::ScoredTokens sampled{scores_.tokens(), top_k_, assignments_,
                                      scores_.probability_sums()};
  measures->set_sampled_tokens(scores_.tokens());
  measures->set_switch_loss(balance::SwitchLoss(sampled, balance::FractionConvention::kAllSlots));
  measures->set_gshard_loss(
      balance::GshardLoss(first_choices_, scores_.tokens(), scores_.probability_sums()));
  measures->set_megatron_loss(balance::MegatronLoss(sampled));
  measures->set_sequence_loss(balance::DeepSeekV3SequenceLoss(sampled));
  measures->set_importance_loss(scores_.ImportanceLoss());
  measures->set_z_loss(scores_.ZLoss());
  measures->set_second_place_loss(scores_.SecondPlaceLoss());
  scores_.Clear();
  assignments_.assign(num_experts_, 0);
  first_choices_.assign(num_experts_, 0);
}

}  // namespace expertmesh::balance_control
