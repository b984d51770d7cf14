#include "common/balance/measures.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/fast_exp.h"
#include "common/base/ranges.h"

namespace expertmesh::balance {
namespace {

template <typename T>
double Sum(absl::Span<const T> values) {
  return std::accumulate(values.begin(), values.end(), 0.0,
                         [](double sum, T value) { return sum + static_cast<double>(value); });
}

template <typename T>
double Deviation(absl::Span<const T> values) {
  const double sum = Sum(values);
  if (sum == 0) {
    return 0;
  }
  const double mean = sum / static_cast<double>(values.size());
  double squares = 0;
  for (const T value : values) {
    const double distance = static_cast<double>(value) - mean;
    squares += distance * distance;
  }
  return std::sqrt(squares / static_cast<double>(values.size())) / std::fabs(mean);
}

template <typename T>
double SquaredShares(absl::Span<const T> values) {
  if (values.empty()) {
    return 0;
  }
  const auto experts = static_cast<double>(values.size());
  const double sum = Sum(values);
  if (sum == 0) {
    return 1 / (experts * experts);
  }
  double squares = 0;
  for (const T value : values) {
    squares += static_cast<double>(value) / sum * (static_cast<double>(value) / sum);
  }
  return squares / experts;
}

// sum of count * probability sum.
double Product(AssignmentCounts counts, absl::Span<const double> probability_sums) {
  EXPERTMESH_CHECK(counts.size() == probability_sums.size());
  double product = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    product += static_cast<double>(counts[i]) * probability_sums[i];
  }
  return product;
}

std::string NameExperts(absl::Span<const uint32_t> experts) {
  return absl::StrCat(experts.size() == 1 ? "expert " : "experts ", FormatRanges(experts));
}

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

// Standard normal distribution function.
double Phi(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }

}  // namespace

double MaxViolation(AssignmentCounts load) {
  const double sum = Sum(load);
  if (sum == 0) {
    return 0;
  }
  const double mean = sum / static_cast<double>(load.size());
  return (static_cast<double>(*std::max_element(load.begin(), load.end())) - mean) / mean;
}

double CoefficientOfVariation(AssignmentCounts load) { return Deviation(load); }
double CoefficientOfVariation(absl::Span<const double> load) { return Deviation(load); }

double NormalisedEntropy(AssignmentCounts load) {
  const double sum = Sum(load);
  if (sum == 0 || load.size() < 2) {
    return 1;
  }
  double entropy = 0;
  for (const uint64_t count : load) {
    if (count > 0) {
      const double share = static_cast<double>(count) / sum;
      entropy -= share * std::log(share);
    }
  }
  return entropy / std::log(static_cast<double>(load.size()));
}

double MeanSquaredShare(AssignmentCounts load) { return SquaredShares(load); }
double MeanSquaredShare(absl::Span<const double> load) { return SquaredShares(load); }

FullestExpert FindFullest(AssignmentCounts load) {
  const double sum = Sum(load);
  if (sum == 0) {
    return {};
  }
  const auto fullest = std::max_element(load.begin(), load.end());
  return {.expert = static_cast<uint32_t>(fullest - load.begin()),
          .share = static_cast<double>(*fullest) / sum};
}

std::vector<uint32_t> DeadExperts(AssignmentCounts load) {
  std::vector<uint32_t> dead;
  for (size_t i = 0; i < load.size(); ++i) {
    if (load[i] == 0) {
      dead.push_back(static_cast<uint32_t>(i));
    }
  }
  return dead;
}

void MaxViolationMeter::Add(AssignmentCounts batch) {
  EXPERTMESH_CHECK(batch.size() == load_.size());
  uint64_t sum = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    load_[i] += batch[i];
    sum += batch[i];
  }
  if (sum == 0) {
    return;
  }
  const double violation = MaxViolation(batch);
  sum_ += violation;
  worst_ = std::max(worst_, violation);
  ++batches_;
}

Collapse FindCollapse(AssignmentCounts load, uint32_t top_k, const CollapseLimits& limits) {
  Collapse collapse;
  const double sum = Sum(load);
  if (top_k == 0 || load.size() <= top_k || sum == 0) {
    return collapse;
  }
  std::vector<uint32_t> order(load.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [load](uint32_t a, uint32_t b) { return load[a] > load[b]; });
  order.resize(top_k);
  double fullest = 0;
  for (const uint32_t expert : order) {
    fullest += static_cast<double>(load[expert]);
  }
  collapse.share = fullest / sum;
  if (sum / static_cast<double>(load.size()) < limits.least_mean) {
    return collapse;
  }
  const double even = static_cast<double>(top_k) / static_cast<double>(load.size());
  if (collapse.share >= even + limits.collapsed_share * (1 - even)) {
    std::sort(order.begin(), order.end());
    collapse.collapsed = std::move(order);
    collapse.text = absl::StrFormat(
        "collapsed: %s %s %.0f %% of the assignments", NameExperts(collapse.collapsed),
        collapse.collapsed.size() == 1 ? "gets" : "get", collapse.share * 100);
  }
  collapse.dead = DeadExperts(load);
  if (!collapse.dead.empty()) {
    absl::StrAppend(&collapse.text, collapse.text.empty() ? "" : "; ",
                    "dead: ", NameExperts(collapse.dead), " (", collapse.dead.size(), " of ",
                    load.size(), ")");
  }
  return collapse;
}

double SwitchLoss(const ScoredTokens& tokens, FractionConvention convention) {
  if (tokens.tokens == 0) {
    return convention == FractionConvention::kAllSlots ? tokens.top_k : 1;
  }
  const auto count = static_cast<double>(tokens.tokens);
  const double slots = convention == FractionConvention::kPerSlot ? tokens.top_k : 1;
  return static_cast<double>(tokens.assignments.size()) *
         Product(tokens.assignments, tokens.probability_sums) / (count * count * slots);
}

double MegatronLoss(const ScoredTokens& tokens) {
  return SwitchLoss(tokens, FractionConvention::kPerSlot);
}

double GshardLoss(AssignmentCounts first_choices, uint64_t tokens,
                  absl::Span<const double> probability_sums) {
  const auto experts = static_cast<double>(first_choices.size());
  if (tokens == 0) {
    return 1 / (experts * experts);
  }
  const auto count = static_cast<double>(tokens);
  return Product(first_choices, probability_sums) / (count * count * experts);
}

double HuggingFaceLoss(absl::Span<const ScoredTokens> layers) {
  if (layers.empty()) {
    return 0;
  }
  std::vector<uint64_t> assignments(layers.front().assignments.size());
  std::vector<double> probability_sums(assignments.size());
  ScoredTokens all;
  all.top_k = layers.front().top_k;
  for (const ScoredTokens& layer : layers) {
    EXPERTMESH_CHECK(layer.assignments.size() == assignments.size() &&
                     layer.probability_sums.size() == assignments.size());
    all.tokens += layer.tokens;
    for (size_t i = 0; i < assignments.size(); ++i) {
      assignments[i] += layer.assignments[i];
      probability_sums[i] += layer.probability_sums[i];
    }
  }
  all.assignments = assignments;
  all.probability_sums = probability_sums;
  return SwitchLoss(all, FractionConvention::kAllSlots);
}

double DeepSeekV2SequenceLoss(absl::Span<const ScoredTokens> sequences, double alpha) {
  if (sequences.empty()) {
    return alpha;
  }
  double sum = 0;
  for (const ScoredTokens& sequence : sequences) {
    sum += SwitchLoss(sequence, FractionConvention::kPerSlot);
  }
  return alpha * sum / static_cast<double>(sequences.size());
}

double DeepSeekV3SequenceLoss(const ScoredTokens& sequence, double alpha) {
  return alpha * SwitchLoss(sequence, FractionConvention::kPerSlot);
}

std::vector<double> NoisyTopKLoad(absl::Span<const float> clean_logits,
                                  absl::Span<const float> noisy_logits,
                                  absl::Span<const float> deviations, uint32_t num_experts,
                                  uint32_t top_k) {
  EXPERTMESH_CHECK(top_k > 0 && top_k < num_experts && noisy_logits.size() % num_experts == 0);
  EXPERTMESH_CHECK(clean_logits.size() == noisy_logits.size() &&
                   deviations.size() == noisy_logits.size());
  std::vector<double> load(num_experts);
  std::vector<float> sorted(num_experts);
  for (size_t first = 0; first < noisy_logits.size(); first += num_experts) {
    const absl::Span<const float> noisy = noisy_logits.subspan(first, num_experts);
    std::copy(noisy.begin(), noisy.end(), sorted.begin());
    std::partial_sort(sorted.begin(), sorted.begin() + top_k + 1, sorted.end(), std::greater<>());
    for (uint32_t i = 0; i < num_experts; ++i) {
      // What the others would have to be beaten by: the top_k-th largest without this one.
      const float threshold = noisy[i] > sorted[top_k] ? sorted[top_k] : sorted[top_k - 1];
      load[i] +=
          Phi((static_cast<double>(clean_logits[first + i]) - threshold) / deviations[first + i]);
    }
  }
  return load;
}

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

void ScoreAccumulator::Merge(const ScoreAccumulator& other) {
  EXPERTMESH_CHECK(other.importance_.size() == importance_.size());
  tokens_ += other.tokens_;
  with_logits_ += other.with_logits_;
  squared_log_sums_ += other.squared_log_sums_;
  for (size_t i = 0; i < importance_.size(); ++i) {
    probability_sums_[i] += other.probability_sums_[i];
    importance_[i] += other.importance_[i];
  }
}

void ScoreAccumulator::Clear() {
  tokens_ = 0;
  with_logits_ = 0;
  squared_log_sums_ = 0;
  std::fill(probability_sums_.begin(), probability_sums_.end(), 0);
  std::fill(importance_.begin(), importance_.end(), 0);
}

double ScoreAccumulator::ImportanceLoss() const {
  const double deviation = CoefficientOfVariation(importance_);
  return deviation * deviation;
}

double ScoreAccumulator::ZLoss() const {
  return with_logits_ == 0 ? 0 : squared_log_sums_ / static_cast<double>(with_logits_);
}

}  // namespace expertmesh::balance
