#include "client/cpp/replay/synthetic_load.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cpp/replay/expert_choice.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace expertmesh::replay {
namespace {

constexpr double kDay = 86'400;

absl::Status Unknown(absl::string_view part) {
  return absl::InvalidArgumentError(
      absl::StrCat("load has '", part,
                   "'; use uniform, zipf:EXPONENT or hot:EXPERTS:SHARE, then +drift:PER_HOUR and "
                   "+diurnal:AMPLITUDE, for example zipf:1.0+drift:0.5"));
}

absl::Status ReadNumber(absl::string_view part, absl::string_view text, double low, double high,
                        double* number) {
  if (!absl::SimpleAtod(text, number) || !(*number >= low && *number <= high)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' in load part '", part, "' must be from ", low, " to ", high));
  }
  return absl::OkStatus();
}

absl::Status ReadPopularity(absl::string_view part, SyntheticOptions* options) {
  const std::vector<absl::string_view> words = absl::StrSplit(part, ':');
  if (part == "uniform") {
    options->popularity = Popularity::kUniform;
    return absl::OkStatus();
  }
  if (words[0] == "zipf" && words.size() == 2) {
    options->popularity = Popularity::kZipf;
    return ReadNumber(part, words[1], 0, 10, &options->exponent);
  }
  if (words[0] == "hot" && words.size() == 3) {
    options->popularity = Popularity::kHot;
    if (!absl::SimpleAtoi(words[1], &options->hot) || options->hot == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", words[1], "' in load part '", part, "' must be a number from 1"));
    }
    return ReadNumber(part, words[2], 0.001, 0.999, &options->hot_share);
  }
  return Unknown(part);
}

// From 0 (excluded) to 1.
double Uniform(std::mt19937_64* random) {
  return (static_cast<double>((*random)() >> 11) + 1) * 0x1p-53;
}

// Standard normal. Not std::normal_distribution: that differs between libraries.
double Normal(std::mt19937_64* random) {
  const double radius = std::sqrt(-2 * std::log(Uniform(random)));
  return radius * std::cos(2 * std::numbers::pi * Uniform(random));
}

}  // namespace

absl::StatusOr<SyntheticOptions> ParseSyntheticLoad(absl::string_view text) {
  SyntheticOptions options;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '+');
  RETURN_IF_ERROR(ReadPopularity(parts[0], &options));
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::vector<absl::string_view> words = absl::StrSplit(parts[i], ':');
    if (words[0] == "drift" && words.size() == 2) {
      RETURN_IF_ERROR(ReadNumber(parts[i], words[1], 0, 1000, &options.drift_per_hour));
    } else if (words[0] == "diurnal" && words.size() == 2) {
      RETURN_IF_ERROR(ReadNumber(parts[i], words[1], 0, 1, &options.diurnal));
    } else {
      return Unknown(parts[i]);
    }
  }
  return options;
}

std::vector<double> LogWeights(const SyntheticOptions& options, uint32_t num_experts) {
  std::vector<double> weights(num_experts, 1);
  if (options.popularity == Popularity::kZipf) {
    for (uint32_t rank = 0; rank < num_experts; ++rank) {
      weights[rank] = std::pow(rank + 1.0, -options.exponent);
    }
  } else if (options.popularity == Popularity::kHot && options.hot < num_experts) {
    for (uint32_t rank = 0; rank < num_experts; ++rank) {
      weights[rank] = rank < options.hot ? options.hot_share / options.hot
                                         : (1 - options.hot_share) / (num_experts - options.hot);
    }
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) {
    weight = std::log(weight / sum);
  }
  return weights;
}

SyntheticLoad::SyntheticLoad(const SyntheticOptions& options, const SyntheticTraffic& traffic,
                             std::vector<balance::RecordedLayer> layers)
    : options_(options), traffic_(traffic), layers_(std::move(layers)) {
  for (const balance::RecordedLayer& layer : layers_) {
    Walk walk;
    walk.random.seed(traffic.seed * 0x9e3779b97f4a7c15 + layer.layer);
    for (uint32_t i = 0; i < layer.num_experts; ++i) {
      walk.places.push_back(Normal(&walk.random));
    }
    walk.by_rank = LogWeights(options, layer.num_experts);
    walks_.push_back(std::move(walk));
  }
}

std::string SyntheticLoad::Describe() const {
  std::string text = "uniform";
  if (options_.popularity == Popularity::kZipf) {
    text = absl::StrCat("Zipf(", options_.exponent, ")");
  } else if (options_.popularity == Popularity::kHot) {
    text = absl::StrCat(options_.hot, " hot experts with ", options_.hot_share, " of the weight");
  }
  if (options_.drift_per_hour > 0) {
    absl::StrAppend(&text, ", drifting ", options_.drift_per_hour, " per hour");
  }
  if (options_.diurnal > 0) {
    absl::StrAppend(&text, ", diurnal by ", options_.diurnal);
  }
  return absl::StrCat(text, ", ", traffic_.tokens_per_second, " tokens/s, seed ", traffic_.seed);
}

// An Ornstein-Uhlenbeck walk: places stay standard normal, so that the load is as skewed as ever.
void SyntheticLoad::Move(Walk* walk) const {
  if (options_.drift_per_hour == 0) {
    return;
  }
  const double kept = std::exp(-options_.drift_per_hour * traffic_.interval_s / 3600);
  const double fresh = std::sqrt(1 - kept * kept);
  for (double& place : walk->places) {
    place = kept * place + fresh * Normal(&walk->random);
  }
}

void SyntheticLoad::Fill(const balance::RecordedLayer& layer, Walk* walk, double tokens,
                         LayerLoad* load) const {
  load->tokens = tokens;
  const double batch_tokens = std::min(tokens, traffic_.batch_tokens);
  load->batch_sizes.clear();
  if (tokens > 0) {
    load->batch_sizes.push_back({.tokens = batch_tokens, .batches = tokens / batch_tokens});
  }
  std::vector<uint32_t> order(layer.num_experts);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [walk](uint32_t a, uint32_t b) {
    return walk->places[a] != walk->places[b] ? walk->places[a] > walk->places[b] : a < b;
  });
  load->log_weights.resize(layer.num_experts);
  load->noise.resize(layer.num_experts);
  for (uint32_t rank = 0; rank < layer.num_experts; ++rank) {
    load->log_weights[order[rank]] = walk->by_rank[rank];
  }
  for (double& noise : load->noise) {
    noise = Normal(&walk->random);
  }
  ExpertChoice choice;
  Choose(load->log_weights, layer.top_k, &choice);
  load->assignments.resize(layer.num_experts);
  for (uint32_t i = 0; i < layer.num_experts; ++i) {
    load->assignments[i] = tokens * choice.chance[i];
  }
  load->batch_violation = BatchViolation(choice.chance, load->noise, batch_tokens);
}

void SyntheticLoad::Next(IntervalLoad* load) {
  EXPERTMESH_CHECK(next_ < traffic_.intervals);
  load->start_s = static_cast<double>(next_) * traffic_.interval_s;
  const double phase = 2 * std::numbers::pi * load->start_s / kDay;
  const double tokens =
      traffic_.tokens_per_second * traffic_.interval_s * (1 + options_.diurnal * std::sin(phase));
  load->layers.resize(layers_.size());
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (next_ > 0) {
      Move(&walks_[i]);
    }
    Fill(layers_[i], &walks_[i], tokens, &load->layers[i]);
  }
  ++next_;
}

}  // namespace expertmesh::replay
