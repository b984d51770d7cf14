#include "client/cpp/decoder/rope.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh::decoder {
namespace {

// 1 / theta^(2i / dimensions), in float32 as the models compute it.
std::vector<float> PlainFrequencies(float theta, uint32_t dimensions) {
  std::vector<float> frequencies(dimensions / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dimensions);
    frequencies[i] = 1.0f / std::pow(theta, exponent);
  }
  return frequencies;
}

float YarnMagnitude(float factor, float mscale) {
  return factor <= 1.0f ? 1.0f : 0.1f * mscale * std::log(factor) + 1.0f;
}

absl::StatusOr<float> PositiveFloat(const JsonReader& config, absl::string_view key,
                                    float fallback) {
  ASSIGN_OR_RETURN(const float value, config.FloatOr({key}, fallback));
  if (!(value > 0.0f)) {
    return config.Error(absl::StrCat(key, " = ", value, " must be given and positive"));
  }
  return value;
}

// Of `original` tokens, when positions are stretched by `factor`.
uint32_t StretchedContext(uint32_t original, float factor) {
  const double stretched = static_cast<double>(original) * static_cast<double>(factor);
  return static_cast<uint32_t>(std::min<double>(stretched, std::numeric_limits<int32_t>::max()));
}

// Where a frequency turns `rotations` times within the original context: an index, not whole.
double TurningPoint(double rotations, double context, uint32_t dimensions, double theta) {
  return dimensions * std::log(context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(theta));
}

// Peng et al., 2023: low frequencies are stretched by `factor`, high ones are not, and a ramp lies
// between.
absl::Status ApplyYarn(const JsonReader& scaling, float theta, uint32_t dimensions,
                       uint32_t context, Rope* rope) {
  ASSIGN_OR_RETURN(const float factor, PositiveFloat(scaling, "factor", 0.0f));
  ASSIGN_OR_RETURN(const float beta_fast, PositiveFloat(scaling, "beta_fast", 32.0f));
  ASSIGN_OR_RETURN(const float beta_slow, PositiveFloat(scaling, "beta_slow", 1.0f));
  ASSIGN_OR_RETURN(const uint32_t original,
                   scaling.PositiveOr({"original_max_position_embeddings"}, context));
  ASSIGN_OR_RETURN(const bool truncate, scaling.BoolOr({"truncate"}, true));
  ASSIGN_OR_RETURN(const float mscale, scaling.FloatOr({"mscale"}, 0.0f));
  ASSIGN_OR_RETURN(const float mscale_all, scaling.FloatOr({"mscale_all_dim"}, 0.0f));
  double low = TurningPoint(beta_fast, original, dimensions, theta);
  double high = TurningPoint(beta_slow, original, dimensions, theta);
  if (truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dimensions) - 1.0);
  if (low == high) {
    high += 0.001;
  }
  for (size_t i = 0; i < rope->inverse_frequencies.size(); ++i) {
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    float& frequency = rope->inverse_frequencies[i];
    frequency = frequency / factor * ramp + frequency * (1.0f - ramp);
  }
  float magnitude = YarnMagnitude(factor, 1.0f);
  if (mscale != 0.0f && mscale_all != 0.0f) {
    magnitude = YarnMagnitude(factor, mscale) / YarnMagnitude(factor, mscale_all);
  }
  rope->context = std::max(context, StretchedContext(original, factor));
  ASSIGN_OR_RETURN(rope->magnitude, scaling.FloatOr({"attention_factor"}, magnitude));
  if (mscale_all != 0.0f) {
    const float all = YarnMagnitude(factor, mscale_all);
    rope->scale = all * all;
  }
  return absl::OkStatus();
}

// Llama 3.1: long waves are stretched, short ones are not, in between the two are mixed.
absl::Status ApplyLlama3(const JsonReader& scaling, Rope* rope) {
  ASSIGN_OR_RETURN(const float factor, PositiveFloat(scaling, "factor", 0.0f));
  ASSIGN_OR_RETURN(const float low, PositiveFloat(scaling, "low_freq_factor", 0.0f));
  ASSIGN_OR_RETURN(const float high, PositiveFloat(scaling, "high_freq_factor", 0.0f));
  ASSIGN_OR_RETURN(const uint32_t original, scaling.Positive({"original_max_position_embeddings"}));
  if (!(high > low)) {
    return scaling.Error(
        absl::StrCat("high_freq_factor = ", high, " must be above low_freq_factor = ", low));
  }
  const float context = static_cast<float>(original);
  for (float& frequency : rope->inverse_frequencies) {
    const float wave = 2.0f * std::numbers::pi_v<float> / frequency;
    if (wave > context / low) {
      frequency /= factor;
    } else if (wave >= context / high) {
      const float smooth = (context / wave - low) / (high - low);
      frequency = (1.0f - smooth) * frequency / factor + smooth * frequency;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDynamic(const JsonReader& scaling, float factor, uint32_t dimensions) {
  if (factor < 1.0f || dimensions <= 2) {
    return scaling.Error(absl::StrCat("rope_type dynamic needs a factor of at least 1, not ",
                                      factor, ", and more than 2 dimensions, not ", dimensions));
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<Rope> Rope::StretchedTo(uint64_t length) const {
  if (!dynamic || length <= dynamic->context) {
    return std::nullopt;
  }
  const auto dims = static_cast<double>(dimensions());
  const double growth =
      dynamic->factor * static_cast<double>(length) / dynamic->context - (dynamic->factor - 1.0);
  Rope stretched = *this;
  stretched.inverse_frequencies =
      PlainFrequencies(static_cast<float>(dynamic->theta * std::pow(growth, dims / (dims - 2.0))),
                       static_cast<uint32_t>(dimensions()));
  return stretched;
}

absl::StatusOr<Rope> ReadRope(const JsonReader& config, uint32_t head_dim,
                              const RopeDefaults& defaults) {
  // Version 5 of transformers writes everything into rope_parameters.
  const bool together = config.Has("rope_parameters");
  ASSIGN_OR_RETURN(const JsonReader scaling,
                   config.ObjectOrEmpty(together ? "rope_parameters" : "rope_scaling"));
  const auto where = [&](absl::string_view key) -> const JsonReader& {
    return together && scaling.Has(key) ? scaling : config;
  };
  ASSIGN_OR_RETURN(const float theta,
                   PositiveFloat(where("rope_theta"), "rope_theta", defaults.theta));
  ASSIGN_OR_RETURN(const float rotated, PositiveFloat(where("partial_rotary_factor"),
                                                      "partial_rotary_factor", defaults.rotated));
  const float turned = static_cast<float>(head_dim) * rotated;
  if (rotated > 1.0f || static_cast<uint32_t>(turned) % 2 != 0 || turned < 2.0f) {
    return config.Error(absl::StrCat("RoPE turns pairs: partial_rotary_factor = ", rotated,
                                     " of a head of ", head_dim, " is no even number up to it"));
  }
  const uint32_t dimensions = static_cast<uint32_t>(turned);
  ASSIGN_OR_RETURN(const uint32_t context, config.PositiveOr({"max_position_embeddings"}, 2048));
  ASSIGN_OR_RETURN(const std::string kind, scaling.StringOr({"rope_type", "type"}, "default"));
  Rope rope;
  rope.inverse_frequencies = PlainFrequencies(theta, dimensions);
  rope.context = context;
  if (kind == "default") {
    return rope;
  }
  if (kind == "yarn") {
    RETURN_IF_ERROR(ApplyYarn(scaling, theta, dimensions, context, &rope));
    return rope;
  }
  if (kind == "llama3") {
    RETURN_IF_ERROR(ApplyLlama3(scaling, &rope));
    return rope;
  }
  if (kind == "linear" || kind == "dynamic") {
    ASSIGN_OR_RETURN(const float factor, PositiveFloat(scaling, "factor", 0.0f));
    rope.context = std::max(context, StretchedContext(context, factor));
    if (kind == "dynamic") {
      RETURN_IF_ERROR(CheckDynamic(scaling, factor, dimensions));
      rope.dynamic = {theta, factor, context};
      return rope;
    }
    for (float& frequency : rope.inverse_frequencies) {
      frequency /= factor;
    }
    return rope;
  }
  return absl::UnimplementedError(absl::StrCat(
      scaling.Source(), ": rope_type = '", kind,
      "' cannot be decoded here; known are default, linear, dynamic, yarn and llama3"));
}

RopeAngles::RopeAngles(const Rope& rope, uint32_t position) : interleaved_(rope.interleaved) {
  cosines_.reserve(rope.inverse_frequencies.size());
  sines_.reserve(rope.inverse_frequencies.size());
  for (const float frequency : rope.inverse_frequencies) {
    const float angle = static_cast<float>(position) * frequency;
    cosines_.push_back(std::cos(angle) * rope.magnitude);
    sines_.push_back(std::sin(angle) * rope.magnitude);
  }
}

void RopeAngles::Turn(float* head) const {
  const size_t pairs = cosines_.size();
  const size_t step = interleaved_ ? 2 : 1;
  const size_t apart = interleaved_ ? 1 : pairs;
  for (size_t i = 0; i < pairs; ++i) {
    float& a = head[i * step];
    float& b = head[i * step + apart];
    const float turned = a * cosines_[i] - b * sines_[i];
    b = b * cosines_[i] + a * sines_[i];
    a = turned;
  }
}

}  // namespace expertmesh::decoder
