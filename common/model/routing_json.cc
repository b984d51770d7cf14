#include "common/model/routing_json.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace expertmesh {
namespace {

using Json = nlohmann::ordered_json;

template <typename Enum>
using Names = std::vector<std::pair<Enum, std::string_view>>;

const Names<LogitDtype>& NamesOf(LogitDtype) {
  static const Names<LogitDtype> names = {{LogitDtype::kModel, "model"}, {LogitDtype::kF32, "f32"}};
  return names;
}

const Names<Noise>& NamesOf(Noise) {
  static const Names<Noise> names = {{Noise::kNone, "none"},
                                     {Noise::kGumbel, "gumbel"},
                                     {Noise::kNormal, "normal"},
                                     {Noise::kLearnedNormal, "learned_normal"},
                                     {Noise::kJitter, "jitter"}};
  return names;
}

const Names<ScoreFunction>& NamesOf(ScoreFunction) {
  static const Names<ScoreFunction> names = {{ScoreFunction::kIdentity, "identity"},
                                             {ScoreFunction::kSoftmax, "softmax"},
                                             {ScoreFunction::kSigmoid, "sigmoid"},
                                             {ScoreFunction::kSqrtSoftplus, "sqrt_softplus"}};
  return names;
}

const Names<ScoreScope>& NamesOf(ScoreScope) {
  static const Names<ScoreScope> names = {{ScoreScope::kAll, "all"},
                                          {ScoreScope::kSelected, "selected"}};
  return names;
}

const Names<ScoreDtype>& NamesOf(ScoreDtype) {
  static const Names<ScoreDtype> names = {{ScoreDtype::kF32, "f32"}, {ScoreDtype::kModel, "model"}};
  return names;
}

const Names<GroupScore>& NamesOf(GroupScore) {
  static const Names<GroupScore> names = {{GroupScore::kMax, "max"},
                                          {GroupScore::kTopTwoSum, "top_two_sum"}};
  return names;
}

const Names<Choice>& NamesOf(Choice) {
  static const Names<Choice> names = {{Choice::kTopK, "top_k"},
                                      {Choice::kSparseMixer, "sparse_mixer"},
                                      {Choice::kExpertChoice, "expert_choice"},
                                      {Choice::kHash, "hash"}};
  return names;
}

const Names<SecondExpert>& NamesOf(SecondExpert) {
  static const Names<SecondExpert> names = {{SecondExpert::kAlways, "always"},
                                            {SecondExpert::kSampled, "sampled"},
                                            {SecondExpert::kRandom, "random"}};
  return names;
}

const Names<Renormalise>& NamesOf(Renormalise) {
  static const Names<Renormalise> names = {{Renormalise::kNone, "none"},
                                           {Renormalise::kSum, "sum"},
                                           {Renormalise::kClampedSum, "clamped_sum"},
                                           {Renormalise::kDtypeClampedSum, "dtype_clamped_sum"},
                                           {Renormalise::kLp, "lp"}};
  return names;
}

const Names<DropPolicy>& NamesOf(DropPolicy) {
  static const Names<DropPolicy> names = {{DropPolicy::kPosition, "position"},
                                          {DropPolicy::kBatchPrioritised, "batch_prioritised"},
                                          {DropPolicy::kScore, "score"},
                                          {DropPolicy::kNextBest, "next_best"}};
  return names;
}

const Names<WeightDtype>& NamesOf(WeightDtype) {
  static const Names<WeightDtype> names = {{WeightDtype::kModel, "model"},
                                           {WeightDtype::kF32, "f32"}};
  return names;
}

const Names<ApplyWeight>& NamesOf(ApplyWeight) {
  static const Names<ApplyWeight> names = {{ApplyWeight::kOutput, "output"},
                                           {ApplyWeight::kInput, "input"}};
  return names;
}

const Names<PassThrough>& NamesOf(PassThrough) {
  static const Names<PassThrough> names = {{PassThrough::kNone, "none"},
                                           {PassThrough::kComplement, "complement"}};
  return names;
}

// The one list of fields. `visit(key, value, changeable)`.
template <typename Options, typename Visitor>
void VisitFields(Options& options, const Visitor& visit) {
  constexpr bool kChangeable = true;
  constexpr bool kOfTheWeights = false;
  visit("num_experts", options.num_experts, kOfTheWeights);
  visit("top_k", options.top_k, kChangeable);
  visit("logit_dtype", options.logit_dtype, kChangeable);
  visit("logit_bias", options.logit_bias, kOfTheWeights);
  visit("temperature", options.temperature, kChangeable);
  visit("noise", options.noise, kChangeable);
  visit("noise_scale", options.noise_scale, kChangeable);
  visit("seed", options.seed, kChangeable);
  visit("score", options.score, kChangeable);
  visit("scope", options.scope, kChangeable);
  visit("score_dtype", options.score_dtype, kChangeable);
  visit("select_bias", options.select_bias, kOfTheWeights);
  visit("n_group", options.n_group, kChangeable);
  visit("topk_group", options.topk_group, kChangeable);
  visit("group_score", options.group_score, kChangeable);
  visit("masked_choice", options.masked_choice, kChangeable);
  visit("choice", options.choice, kChangeable);
  visit("sparse_mixer_epsilon", options.sparse_mixer_epsilon, kChangeable);
  visit("sorted_selection", options.sorted_selection, kChangeable);
  visit("second_expert", options.second_expert, kChangeable);
  visit("second_expert_threshold", options.second_expert_threshold, kChangeable);
  visit("renormalise", options.renormalise, kChangeable);
  visit("renormalise_epsilon", options.renormalise_epsilon, kChangeable);
  visit("renormalise_p", options.renormalise_p, kChangeable);
  visit("renormalise_after_drop", options.renormalise_after_drop, kChangeable);
  visit("capacity_tokens", options.capacity.tokens, kChangeable);
  visit("capacity_factor", options.capacity.factor, kChangeable);
  visit("capacity_minimum", options.capacity.minimum, kChangeable);
  visit("drop", options.capacity.drop, kChangeable);
  visit("scale", options.scale, kChangeable);
  visit("weight_dtype", options.weight_dtype, kChangeable);
  visit("apply", options.apply, kOfTheWeights);
  visit("pass_through", options.pass_through, kChangeable);
}

absl::Status Wrong(std::string_view key, const Json& value, std::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("routing option ", std::string(key), " = ",
                                                 value.dump(), " must be ", std::string(wanted)));
}

absl::Status Read(std::string_view key, const Json& value, bool* target) {
  if (!value.is_boolean()) {
    return Wrong(key, value, "true or false");
  }
  *target = value.get<bool>();
  return absl::OkStatus();
}

// Minus infinity is the string "-inf": JSON has no number for it.
absl::Status Read(std::string_view key, const Json& value, float* target) {
  if (value == "-inf") {
    *target = -std::numeric_limits<float>::infinity();
    return absl::OkStatus();
  }
  if (!value.is_number() || !std::isfinite(value.get<float>())) {
    return Wrong(key, value, "a finite number");
  }
  *target = value.get<float>();
  return absl::OkStatus();
}

template <typename Whole>
absl::Status ReadWhole(std::string_view key, const Json& value, Whole* target) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > std::numeric_limits<Whole>::max()) {
    return Wrong(key, value, "a whole number");
  }
  *target = value.get<Whole>();
  return absl::OkStatus();
}

absl::Status Read(std::string_view key, const Json& value, uint32_t* target) {
  return ReadWhole(key, value, target);
}

absl::Status Read(std::string_view key, const Json& value, uint64_t* target) {
  return ReadWhole(key, value, target);
}

template <typename Enum>
requires std::is_enum_v<Enum> absl::Status Read(std::string_view key, const Json& value,
                                                Enum* target) {
  std::vector<std::string> known;
  for (const auto& [candidate, name] : NamesOf(Enum{})) {
    if (value == name) {
      *target = candidate;
      return absl::OkStatus();
    }
    known.push_back(absl::StrCat("\"", std::string(name), "\""));
  }
  return Wrong(key, value, absl::StrCat("one of ", absl::StrJoin(known, ", ")));
}

template <typename Value>
Json Written(Value value) {
  if constexpr (std::is_enum_v<Value>) {
    for (const auto& [candidate, name] : NamesOf(value)) {
      if (candidate == value) {
        return std::string(name);
      }
    }
    return nullptr;
  } else if constexpr (std::is_floating_point_v<Value>) {
    // The shortest text that reads back as the same float, not as the nearest double.
    return std::isinf(value) ? Json("-inf") : Json::parse(absl::StrCat(value));
  } else {
    return value;
  }
}

}  // namespace

absl::StatusOr<RoutingOptions> WithRoutingJson(const RoutingOptions& base, absl::string_view json) {
  const Json object = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("routing options must be one JSON object, such as {\"top_k\": 2}; was ",
                     std::string(json.substr(0, 200))));
  }
  RoutingOptions options = base;
  absl::Status status;
  size_t used = 0;
  std::vector<std::string> known;
  VisitFields(options, [&](std::string_view key, auto& field, bool changeable) {
    if (changeable) {
      known.emplace_back(key);
    }
    const auto found = object.find(std::string(key));
    if (found == object.end() || !status.ok()) {
      return;
    }
    ++used;
    const auto before = field;
    status = Read(key, *found, &field);
    if (status.ok() && !changeable && field != before) {
      status = absl::InvalidArgumentError(
          absl::StrCat("routing option ", std::string(key),
                       " belongs to the checkpoint's weights and cannot be changed"));
    }
  });
  RETURN_IF_ERROR(status);
  if (used < object.size()) {
    std::vector<std::string> unknown;
    RoutingOptions all;
    for (const auto& item : object.items()) {
      const std::string& key = item.key();
      bool found = false;
      VisitFields(all, [&](std::string_view name, auto&, bool) { found |= name == key; });
      if (!found) {
        unknown.push_back(key);
      }
    }
    return absl::InvalidArgumentError(absl::StrCat("unknown routing option ",
                                                   absl::StrJoin(unknown, ", "),
                                                   "; known: ", absl::StrJoin(known, ", ")));
  }
  return options;
}

std::string RoutingJson(const RoutingOptions& options) {
  Json object = Json::object();
  VisitFields(options, [&](std::string_view key, const auto& field, bool) {
    object[std::string(key)] = Written(field);
  });
  return object.dump();
}

}  // namespace expertmesh
