#include "client/cpp/reference/reference_moe.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <thread>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/reference/reference_expert.h"
#include "client/cpp/reference/reference_matrix.h"
#include "client/cpp/reference/reference_scores.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"

namespace expertmesh::reference {
namespace {

// Calls work(0) .. work(count - 1), each once, from several threads.
void ParallelFor(size_t count, int threads, const std::function<void(size_t)>& work) {
  const size_t wanted = static_cast<size_t>(threads > 0 ? threads : AvailableCores());
  std::atomic<size_t> next = 0;
  const auto loop = [&] {
    for (size_t i = next++; i < count; i = next++) {
      work(i);
    }
  };
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(count, wanted); ++i) {
    helpers.emplace_back(loop);
  }
  loop();
  for (std::thread& helper : helpers) {
    helper.join();
  }
}

absl::Status Wrong(absl::string_view what, uint64_t is, uint64_t expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " holds ", is, " values; ", expected, " are expected"));
}

absl::StatusOr<const MoeLayerDescription*> FindLayer(const checkpoint::MoeCheckpoint& checkpoint,
                                                     uint32_t layer, const ReferenceInput& input) {
  const MoeLayerDescription* const description = checkpoint.model().FindLayer(layer);
  if (description == nullptr) {
    return absl::NotFoundError(absl::StrCat("layer ", layer, " is not a MoE layer"));
  }
  const size_t d_model = description->expert.d_model;
  if (input.hidden.size() % d_model != 0 || input.hidden.size() / d_model != input.tokens) {
    return absl::InvalidArgumentError(absl::StrCat("hidden holds ", input.hidden.size(),
                                                   " values; ", input.tokens, " tokens of ",
                                                   d_model, " are expected"));
  }
  uint64_t grouped = 0;
  for (const uint32_t size : input.group_sizes) {
    grouped += size;
  }
  if (!input.group_sizes.empty() && grouped != input.tokens) {
    return Wrong("group_sizes", grouped, input.tokens);
  }
  return description;
}

// Calls work(first token, number of tokens) for each group.
void ForEachGroup(const ReferenceInput& input, const std::function<void(size_t, size_t)>& work) {
  if (input.group_sizes.empty()) {
    work(0, input.tokens);
    return;
  }
  size_t begin = 0;
  for (const uint32_t size : input.group_sizes) {
    work(begin, size);
    begin += size;
  }
}

ReferenceGroup GroupAt(const RoutingOptions& routing, const ReferenceInput& input,
                       const ReferenceRoutes& routes, Dtype activation_dtype, size_t begin,
                       size_t count) {
  ReferenceGroup group;
  group.logits = absl::MakeConstSpan(routes.logits)
                     .subspan(begin * routing.num_experts, count * routing.num_experts);
  group.select_bias = routes.select_bias;
  if (!input.token_ids.empty()) {
    group.token_ids = input.token_ids.subspan(begin, count);
  }
  group.activation_dtype = activation_dtype;
  return group;
}

// `view` as a model has it that computes in `dtype`.
absl::StatusOr<FloatMatrix> DecodeRounded(const MatrixView& view, Dtype dtype) {
  ASSIGN_OR_RETURN(FloatMatrix matrix, DecodeReference(view));
  for (float& value : matrix.values) {
    value = RoundReference(dtype, value);
  }
  return matrix;
}

// The gate's product and its bias, in float32 from sums that are more exact.
absl::Status ComputeLogits(const GateWeights& weights, const RoutingOptions& routing,
                           const ReferenceInput& input, const ReferenceOptions& options,
                           ReferenceRoutes* routes) {
  const Dtype dtype =
      routing.logit_dtype == LogitDtype::kModel ? options.activation_dtype : Dtype::kF32;
  ASSIGN_OR_RETURN(const FloatMatrix gate, DecodeRounded(weights.weight, dtype));
  ASSIGN_OR_RETURN(const FloatMatrix logit_bias, DecodeRounded(weights.logit_bias, dtype));
  ASSIGN_OR_RETURN(FloatMatrix select_bias, DecodeReference(weights.select_bias));
  const size_t experts = routing.num_experts;
  if (gate.rows != experts) {
    return Wrong("the gate's rows", gate.rows, experts);
  }
  if (routing.logit_bias && logit_bias.values.size() != experts) {
    return Wrong("the gate's logit bias", logit_bias.values.size(), experts);
  }
  if (routing.select_bias && select_bias.values.size() != experts) {
    return Wrong("the gate's bias for selection", select_bias.values.size(), experts);
  }
  if (routing.choice == Choice::kHash && input.token_ids.size() != input.tokens) {
    return Wrong("token_ids", input.token_ids.size(), input.tokens);
  }
  routes->select_bias = std::move(select_bias.values);
  routes->logits.resize(input.tokens * experts);
  ParallelFor(input.tokens, options.threads, [&](size_t token) {
    for (size_t expert = 0; expert < experts; ++expert) {
      float logit =
          ReferenceDot(gate.row(expert), input.hidden.data() + token * gate.cols, gate.cols);
      if (routing.logit_bias) {
        logit += logit_bias.values[expert];
      }
      routes->logits[token * experts + expert] = logit;
    }
  });
  return absl::OkStatus();
}

// One layer and one batch, on the way to its output.
class Computation {
 public:
  Computation(const checkpoint::MoeCheckpoint& checkpoint, const MoeLayerDescription& layer,
              const RoutingOptions& routing, const ReferenceInput& input,
              absl::Span<const TokenExperts> chosen, const ReferenceOptions& options)
      : checkpoint_(checkpoint),
        layer_(layer),
        routing_(routing),
        input_(input),
        chosen_(chosen),
        options_(options),
        d_model_(layer.expert.d_model) {}

  // rows_: what every assignment adds, weight applied.
  absl::Status ComputeExperts() {
    absl::btree_map<uint32_t, std::vector<std::pair<size_t, size_t>>> assignments;  // By expert.
    for (size_t token = 0; token < chosen_.size(); ++token) {
      rows_.emplace_back(chosen_[token].expert_ids.size());
      for (size_t slot = 0; slot < chosen_[token].expert_ids.size(); ++slot) {
        assignments[chosen_[token].expert_ids[slot]].emplace_back(token, slot);
      }
    }
    std::vector<const std::vector<std::pair<size_t, size_t>>*> lists;
    std::vector<ExpertWeights> weights;
    for (const auto& [expert, list] : assignments) {
      ASSIGN_OR_RETURN(weights.emplace_back(), checkpoint_.Expert(layer_.layer, expert));
      lists.push_back(&list);
    }
    std::vector<absl::Status> statuses(lists.size());
    ParallelFor(lists.size(), options_.threads, [&](size_t i) {
      const absl::StatusOr<FloatExpert> expert = DecodeReferenceExpert(layer_.expert, weights[i]);
      statuses[i] = expert.ok() ? checkpoint_.ConfirmRead(weights[i]) : expert.status();
      for (const auto& [token, slot] : *lists[i]) {
        if (expert.ok()) {
          ComputeAssignment(*expert, token, slot);
        }
      }
    });
    for (const absl::Status& status : statuses) {
      RETURN_IF_ERROR(status);
    }
    return absl::OkStatus();
  }

  // Sums the experts' rows in slot order, the shared experts' and what passes by.
  absl::StatusOr<std::vector<float>> Combine() {
    FloatExpert shared;
    FloatMatrix shared_gate;
    const bool has_shared = layer_.shared_intermediate_size > 0;
    if (has_shared) {
      ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint_.Shared(layer_.layer));
      ASSIGN_OR_RETURN(shared, DecodeReferenceExpert(SharedExpertOptions(layer_), weights));
      RETURN_IF_ERROR(checkpoint_.ConfirmRead(weights));
    }
    if (layer_.shared_gate) {
      ASSIGN_OR_RETURN(const GateWeights gate, checkpoint_.Gate(layer_.layer));
      ASSIGN_OR_RETURN(shared_gate, DecodeRounded(gate.shared_gate, options_.activation_dtype));
      RETURN_IF_ERROR(checkpoint_.ConfirmRead(gate));
      if (shared_gate.values.size() != d_model_) {
        return Wrong("the shared experts' gate", shared_gate.values.size(), d_model_);
      }
    }
    std::vector<float> output(input_.tokens * d_model_);
    ParallelFor(input_.tokens, options_.threads, [&](size_t token) {
      std::vector<float> shared_row(d_model_, 0.0f);
      double share = has_shared ? 1.0 : 0.0;
      if (has_shared) {
        ApplyReferenceExpert(shared, Row(token), shared_row.data());
      }
      if (layer_.shared_gate) {
        const float product = ReferenceDot(shared_gate.row(0), Row(token), d_model_);
        share = Rounded(ReferenceSigmoid(Rounded(product)));
      }
      for (size_t i = 0; i < d_model_; ++i) {
        double sum = share * shared_row[i] + PassedBy(token) * Row(token)[i];
        for (const std::vector<float>& row : rows_[token]) {
          sum += row[i];
        }
        output[token * d_model_ + i] = static_cast<float>(sum);
      }
    });
    return output;
  }

 private:
  const float* Row(size_t token) const { return input_.hidden.data() + token * d_model_; }

  float Rounded(double value) const {
    return RoundReference(options_.activation_dtype, static_cast<float>(value));
  }

  double PassedBy(size_t token) const {
    if (routing_.pass_through == PassThrough::kNone) {
      return 0.0;
    }
    double left = 1.0;
    for (const float weight : chosen_[token].weights) {
      left -= weight;
    }
    return left;
  }

  void ComputeAssignment(const FloatExpert& expert, size_t token, size_t slot) {
    const float weight = chosen_[token].weights[slot];
    const bool on_input = routing_.apply == ApplyWeight::kInput;
    std::vector<float> x(Row(token), Row(token) + d_model_);
    std::vector<float>& output = rows_[token][slot];
    output.resize(d_model_);
    for (float& value : x) {
      value *= on_input ? weight : 1.0f;
    }
    ApplyReferenceExpert(expert, x.data(), output.data());
    for (float& value : output) {
      value *= on_input ? 1.0f : weight;
    }
  }

  const checkpoint::MoeCheckpoint& checkpoint_;
  const MoeLayerDescription& layer_;
  const RoutingOptions& routing_;
  const ReferenceInput& input_;
  const absl::Span<const TokenExperts> chosen_;
  const ReferenceOptions options_;
  const size_t d_model_;
  std::vector<std::vector<std::vector<float>>> rows_;  // [tokens][assignments][d_model]
};

}  // namespace

size_t ReferenceRoutes::ties() const {
  return static_cast<size_t>(
      std::count_if(tokens.begin(), tokens.end(), [](const auto& token) { return token.tie; }));
}

std::vector<TokenExperts> ExpertsOf(absl::Span<const ReferenceRouting> routings) {
  return {routings.begin(), routings.end()};
}

absl::StatusOr<ReferenceRoutes> RouteWithReference(const checkpoint::MoeCheckpoint& checkpoint,
                                                   uint32_t layer, const RoutingOptions& routing,
                                                   const ReferenceInput& input,
                                                   const ReferenceOptions& options) {
  RETURN_IF_ERROR(FindLayer(checkpoint, layer, input).status());
  if (const std::string random = RandomPart(routing); !random.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("layer ", layer, " is routed at random (", random,
                     "), which cannot be repeated outside of the router"));
  }
  ReferenceRoutes routes;
  ASSIGN_OR_RETURN(const GateWeights gate, checkpoint.Gate(layer));
  RETURN_IF_ERROR(ComputeLogits(gate, routing, input, options, &routes));
  RETURN_IF_ERROR(checkpoint.ConfirmRead(gate));
  ForEachGroup(input, [&](size_t begin, size_t count) {
    const ReferenceGroup group =
        GroupAt(routing, input, routes, options.activation_dtype, begin, count);
    for (ReferenceRouting& token : RouteReference(routing, group)) {
      routes.tokens.push_back(std::move(token));
    }
  });
  return routes;
}

std::vector<bool> RoundingExplains(const RoutingOptions& routing, const ReferenceInput& input,
                                   const ReferenceRoutes& routes,
                                   absl::Span<const TokenExperts> reported,
                                   const ReferenceOptions& options) {
  std::vector<bool> explained;
  const auto explain = [&](size_t begin, size_t count) {
    const ReferenceGroup group =
        GroupAt(routing, input, routes, options.activation_dtype, begin, count);
    explained.insert(
        explained.end(), count,
        RoundingExplains(routing, group, absl::MakeConstSpan(routes.tokens).subspan(begin, count),
                         reported.subspan(begin, count)));
  };
  if (routing.looks_at_groups()) {
    ForEachGroup(input, explain);
  } else {
    for (size_t token = 0; token < input.tokens; ++token) {
      explain(token, 1);
    }
  }
  return explained;
}

absl::StatusOr<std::vector<float>> ComputeWithReference(const checkpoint::MoeCheckpoint& checkpoint,
                                                        uint32_t layer,
                                                        const RoutingOptions& routing,
                                                        const ReferenceInput& input,
                                                        absl::Span<const TokenExperts> chosen,
                                                        const ReferenceOptions& options) {
  ASSIGN_OR_RETURN(const MoeLayerDescription* const description,
                   FindLayer(checkpoint, layer, input));
  if (chosen.size() != input.tokens) {
    return Wrong("the list of chosen experts", chosen.size(), input.tokens);
  }
  for (const TokenExperts& token : chosen) {
    if (token.weights.size() != token.expert_ids.size()) {
      return Wrong("a token's list of weights", token.weights.size(), token.expert_ids.size());
    }
  }
  Computation computation(checkpoint, *description, routing, input, chosen, options);
  RETURN_IF_ERROR(computation.ComputeExperts());
  return computation.Combine();
}

}  // namespace expertmesh::reference
