// What balance losses need of the scores, summed as rows come.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "common/balance/measures.h"
#include "common/base/check.h"
#include "common/base/fast_exp.h"

namespace expertmesh::balance {
namespace {

// Numbers that are added or compared at once: as many chains as a vector has lanes.
constexpr size_t kLanes = 8;

float LargestOf(absl::Span<const float> values) {
  float lanes[kLanes];
  std::fill(std::begin(lanes), std::end(lanes), values[0]);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  const float largest = *std::max_element(std::begin(lanes), std::end(lanes));
  return i == values.size()
             ? largest
             : std::max(largest, *std::max_element(values.begin() + i, values.end()));
}

float SumOf(absl::Span<const float> values) {
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += values[i + lane];
    }
  }
  float sum = std::accumulate(std::begin(lanes), std::end(lanes), 0.0f);
  for (; i < values.size(); ++i) {
    sum += values[i];
  }
  return sum;
}

}  // namespace

float ScoreAccumulator::AddLogSumExp(absl::Span<const float> logits) {
  EXPERTMESH_CHECK(logits.size() == probability_sums_.size());
  const float largest = LargestOf(logits);
  for (size_t i = 0; i < logits.size(); ++i) {
    values_[i] = FastExp(logits[i] - largest);
  }
  const float sum = SumOf(values_);
  const double log_sum = static_cast<double>(largest) + std::log(static_cast<double>(sum));
  if (!std::isfinite(log_sum)) {
    return 0;
  }
  squared_log_sums_ += log_sum * log_sum;
  ++with_logits_;
  ++tokens_;
  return sum;
}

void ScoreAccumulator::AddValues(float sum) {
  if (sum > 0) {
    const float scale = 1 / sum;
    for (size_t i = 0; i < values_.size(); ++i) {
      probability_sums_[i] += values_[i] * scale;
    }
  }
}

void ScoreAccumulator::AddSoftmaxLogits(absl::Span<const float> logits) {
  AddValues(AddLogSumExp(logits));
}

void ScoreAccumulator::AddSigmoidLogits(absl::Span<const float> logits) {
  if (AddLogSumExp(logits) == 0) {
    return;
  }
  for (size_t i = 0; i < logits.size(); ++i) {
    values_[i] = 1.0f / (1.0f + FastExp(-logits[i]));
  }
  AddValues(SumOf(values_));
}

void ScoreAccumulator::AddProbabilities(absl::Span<const float> probabilities) {
  EXPERTMESH_CHECK(probabilities.size() == probability_sums_.size());
  if (!std::all_of(probabilities.begin(), probabilities.end(),
                   [](float probability) { return std::isfinite(probability); })) {
    return;
  }
  for (size_t i = 0; i < probabilities.size(); ++i) {
    probability_sums_[i] += probabilities[i];
    values_[i] = probabilities[i];
  }
  ++tokens_;
}

void ScoreAccumulator::AddWeights(absl::Span<const uint32_t> experts,
                                  absl::Span<const float> weights) {
  EXPERTMESH_CHECK(experts.size() == weights.size());
  for (size_t i = 0; i < experts.size(); ++i) {
    EXPERTMESH_CHECK(experts[i] < importance_.size());
    importance_[experts[i]] += weights[i];
  }
}

void ScoreAccumulator::AddSecondChoice(uint32_t first, uint32_t second) {
  EXPERTMESH_CHECK(first < values_.size() && second < values_.size());
  ++with_second_;
  ++second_choices_[second];
  values_[first] = 0;
  // Summed without the first, which may be so large that nothing would be left of the others.
  const float rest = SumOf(values_);
  if (rest > 0) {
    const float scale = 1 / rest;
    for (size_t i = 0; i < values_.size(); ++i) {
      second_sums_[i] += values_[i] * scale;
    }
  }
}

void ScoreAccumulator::Merge(const ScoreAccumulator& other) {
  EXPERTMESH_CHECK(other.importance_.size() == importance_.size());
  tokens_ += other.tokens_;
  with_logits_ += other.with_logits_;
  squared_log_sums_ += other.squared_log_sums_;
  with_second_ += other.with_second_;
  for (size_t i = 0; i < importance_.size(); ++i) {
    probability_sums_[i] += other.probability_sums_[i];
    importance_[i] += other.importance_[i];
    second_sums_[i] += other.second_sums_[i];
    second_choices_[i] += other.second_choices_[i];
  }
}

void ScoreAccumulator::Clear() {
  tokens_ = 0;
  with_logits_ = 0;
  squared_log_sums_ = 0;
  std::fill(probability_sums_.begin(), probability_sums_.end(), 0);
  std::fill(importance_.begin(), importance_.end(), 0);
  with_second_ = 0;
  std::fill(second_sums_.begin(), second_sums_.end(), 0);
  std::fill(second_choices_.begin(), second_choices_.end(), 0);
}

double ScoreAccumulator::ImportanceLoss() const {
  const double deviation = CoefficientOfVariation(importance_);
  return deviation * deviation;
}

double ScoreAccumulator::ZLoss() const {
  return with_logits_ == 0 ? 0 : squared_log_sums_ / static_cast<double>(with_logits_);
}

double ScoreAccumulator::SecondPlaceLoss() const {
  const auto experts = static_cast<double>(second_sums_.size());
  return with_second_ == 0
             ? 1
             : experts * experts * GshardLoss(second_choices_, with_second_, second_sums_);
}

}  // namespace expertmesh::balance
