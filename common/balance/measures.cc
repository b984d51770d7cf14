#include "common/balance/measures.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
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

// 1 of none.
double MeanMegatronLoss(absl::Span<const ScoredTokens> parts) {
  if (parts.empty()) {
    return 1;
  }
  double sum = 0;
  for (const ScoredTokens& part : parts) {
    sum += MegatronLoss(part);
  }
  return sum / static_cast<double>(parts.size());
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

double MegatronGlobalLoss(const ScoredTokens& batch, AssignmentCounts assignments,
                          uint64_t all_tokens) {
  if (batch.tokens == 0 || all_tokens == 0) {
    return 1;
  }
  return static_cast<double>(assignments.size()) * Product(assignments, batch.probability_sums) /
         (static_cast<double>(batch.top_k) * static_cast<double>(all_tokens) *
          static_cast<double>(batch.tokens));
}

double MegaBlocksLoss(absl::Span<const ScoredTokens> layers, double weight) {
  return weight * MeanMegatronLoss(layers);
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
  return alpha * MeanMegatronLoss(sequences);
}

double DeepSeekV3SequenceLoss(const ScoredTokens& sequence, double alpha) {
  return alpha * SwitchLoss(sequence, FractionConvention::kPerSlot);
}

double MeshTensorFlowLoss(AssignmentCounts first_choices, const ScoreAccumulator& scores) {
  const auto experts = static_cast<double>(first_choices.size());
  return experts * experts * GshardLoss(first_choices, scores.tokens(), scores.probability_sums()) +
         scores.SecondPlaceLoss() / 2;
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

}  // namespace expertmesh::balance
