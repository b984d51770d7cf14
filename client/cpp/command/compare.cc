#include "client/cpp/command/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/library/forward_codec.h"
#include "common/base/status_macros.h"
#include "common/model/routing_json.h"

namespace expertmesh::command {
namespace {

// Choices that differ by less are the same: another order of summation moves a float32 score by as
// much.
constexpr float kTie = 1e-6f;

double RelativeError(absl::Span<const float> value, absl::Span<const float> expected) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    const double delta = double{value[i]} - double{expected[i]};
    difference += delta * delta;
    norm += double{expected[i]} * double{expected[i]};
  }
  if (difference == 0) {
    return 0;
  }
  const double error = std::sqrt(difference / norm);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

bool SameExperts(std::vector<uint32_t> left, std::vector<uint32_t> right) {
  std::sort(left.begin(), left.end());
  std::sort(right.begin(), right.end());
  return left == right;
}

float WeightOf(const reference::TokenExperts& token, uint32_t expert) {
  const auto found = std::find(token.expert_ids.begin(), token.expert_ids.end(), expert);
  return found == token.expert_ids.end()
             ? 0.0f
             : token.weights[static_cast<size_t>(found - token.expert_ids.begin())];
}

// Compares the weights of two tokens that have the same experts. The bound is coarse: rounding
// alone changes weights by less, a decision that rounding turns around changes them by far more.
bool SimilarWeights(const reference::TokenExperts& left, const reference::TokenExperts& right) {
  return std::all_of(left.expert_ids.begin(), left.expert_ids.end(), [&](uint32_t expert) {
    const float weight = WeightOf(right, expert);
    return std::fabs(WeightOf(left, expert) - weight) <= 0.02f * std::fabs(weight);
  });
}

// One for each token, empty when the answer brought none.
std::vector<reference::TokenExperts> TokensOf(const client::Routing& routing, size_t tokens) {
  std::vector<uint32_t> counts = routing.assignments_per_token;
  if (counts.empty() && routing.experts_per_token > 0) {
    counts.assign(tokens, static_cast<uint32_t>(routing.experts_per_token));
  }
  const size_t total = std::accumulate(counts.begin(), counts.end(), size_t{0});
  if (counts.size() != tokens || routing.expert_ids.size() != total ||
      routing.expert_weights.size() != total) {
    return {};
  }
  std::vector<reference::TokenExperts> result(tokens);
  size_t next = 0;
  for (size_t token = 0; token < tokens; ++token) {
    for (uint32_t i = 0; i < counts[token]; ++i, ++next) {
      result[token].expert_ids.push_back(routing.expert_ids[next]);
      result[token].weights.push_back(routing.expert_weights[next]);
    }
  }
  return result;
}

// Why this sample's routing cannot be repeated here; empty when it can.
std::string WhyNotRepeatable(const RoutingOptions& routing, const Sample& sample) {
  if (std::string random = reference::RandomPart(routing); !random.empty()) {
    return random;
  }
  if (routing.choice == Choice::kHash && sample.token_ids.empty()) {
    return "no token ids";
  }
  return routing.looks_at_groups() && !sample.whole ? "not all tokens of a group" : "";
}

// A decision that rounding explains is no difference.
void ForgiveRounding(const RoutingOptions& routing, const reference::ReferenceInput& input,
                     const Sample& sample, const reference::ReferenceOptions& options,
                     reference::ReferenceRoutes* routes) {
  if (sample.chosen.size() != sample.tokens) {
    return;
  }
  const std::vector<bool> explained =
      reference::RoundingExplains(routing, input, *routes, sample.chosen, options);
  for (size_t token = 0; token < sample.tokens; ++token) {
    if (explained[token] &&
        !SameExperts(routes->tokens[token].expert_ids, sample.chosen[token].expert_ids)) {
      routes->tokens[token].margin = 0.0f;
    }
  }
}

}  // namespace

absl::Status Sample::Add(const client::Matrix& request, const client::ForwardResult& answer,
                         size_t limit) {
  const client::Matrix& made = answer.output;
  if (made.rows() != request.rows() || made.cols() != request.cols()) {
    return absl::FailedPreconditionError(absl::StrCat("the answer is [", made.rows(), ", ",
                                                      made.cols(), "], the request [",
                                                      request.rows(), ", ", request.cols(), "]"));
  }
  Sample one;
  one.tokens = std::min(limit, request.rows());
  one.whole = one.tokens == request.rows();
  one.group_sizes = {static_cast<uint32_t>(one.tokens)};
  one.hidden = request.ToFloats();
  one.hidden.resize(one.tokens * request.cols());
  one.output = made.ToFloats();
  one.output.resize(one.tokens * request.cols());
  one.chosen = TokensOf(answer.routing, request.rows());
  one.chosen.resize(std::min(one.chosen.size(), one.tokens));
  Append(one);
  return absl::OkStatus();
}

void Sample::Append(const Sample& other) {
  const auto append = [](const auto& from, auto* to) {
    to->insert(to->end(), from.begin(), from.end());
  };
  tokens += other.tokens;
  append(other.hidden, &hidden);
  append(other.output, &output);
  append(other.chosen, &chosen);
  append(other.token_ids, &token_ids);
  append(other.group_sizes, &group_sizes);
  whole = whole && other.whole;
}

Agreement Compare(const Sample& sample, absl::Span<const reference::ReferenceRouting> routed,
                  absl::Span<const float> expected) {
  Agreement agreement;
  if (sample.tokens == 0) {
    return agreement;
  }
  const size_t d_model = sample.hidden.size() / sample.tokens;
  const absl::Span<const float> output = sample.output;
  const bool reported = sample.chosen.size() == sample.tokens;
  for (size_t token = 0; token < sample.tokens; ++token) {
    const bool same =
        reported && SameExperts(sample.chosen[token].expert_ids, routed[token].expert_ids);
    if (reported && routed[token].margin <= kTie &&
        !(same && SimilarWeights(sample.chosen[token], routed[token]))) {
      ++agreement.ties;
      continue;
    }
    ++(same ? agreement.same_experts : agreement.other_experts);
    agreement.worst_error =
        std::max(agreement.worst_error, RelativeError(output.subspan(token * d_model, d_model),
                                                      expected.subspan(token * d_model, d_model)));
  }
  return agreement;
}

absl::StatusOr<RoutingOptions> RoutingInForce(const checkpoint::MoeCheckpoint& checkpoint,
                                              const client::LayerInfo& layer) {
  const MoeLayerDescription* const description = checkpoint.model().FindLayer(layer.layer);
  if (description == nullptr) {
    return absl::NotFoundError(absl::StrCat("layer ", layer.layer, " is not a MoE layer"));
  }
  if (layer.routing.empty()) {
    return description->routing;
  }
  absl::StatusOr<RoutingOptions> routing = WithRoutingJson(description->routing, layer.routing);
  if (!routing.ok()) {
    return absl::InternalError(absl::StrCat("the router's description of layer ", layer.layer,
                                            " is not valid: ", routing.status().message()));
  }
  return routing;
}

absl::StatusOr<Agreement> CompareWithReference(const checkpoint::MoeCheckpoint& checkpoint,
                                               const client::LayerInfo& layer,
                                               client::Dtype activation_dtype,
                                               const Sample& sample) {
  ASSIGN_OR_RETURN(const RoutingOptions routing, RoutingInForce(checkpoint, layer));
  reference::ReferenceInput input;
  input.hidden = sample.hidden;
  input.tokens = sample.tokens;
  input.token_ids = sample.token_ids;
  input.group_sizes = sample.group_sizes;
  reference::ReferenceOptions options;
  options.activation_dtype = client::ToInternal(activation_dtype);
  reference::ReferenceRoutes routes;
  const std::string why = WhyNotRepeatable(routing, sample);
  if (why.empty()) {
    ASSIGN_OR_RETURN(
        routes, reference::RouteWithReference(checkpoint, layer.layer, routing, input, options));
    ForgiveRounding(routing, input, sample, options, &routes);
  } else if (sample.chosen.size() != sample.tokens) {
    return absl::FailedPreconditionError(
        absl::StrCat("the routing of layer ", layer.layer, " cannot be repeated here (", why,
                     ") and the router's answer does not bring it: there is nothing to compare"));
  } else {
    for (const reference::TokenExperts& token : sample.chosen) {
      routes.tokens.push_back({token, {}, std::numeric_limits<float>::infinity(), false});
    }
  }
  ASSIGN_OR_RETURN(const std::vector<float> expected,
                   reference::ComputeWithReference(checkpoint, layer.layer, routing, input,
                                                   reference::ExpertsOf(routes.tokens), options));
  Agreement agreement = Compare(sample, routes.tokens, expected);
  agreement.routing_taken_because = why;
  return agreement;
}

OptionSpec ToleranceOption() {
  return {.name = "tolerance",
          .kind = OptionKind::kNumber,
          .value = "X",
          .help =
              "largest relative error of a token; by default 1e-5 when activations in the mesh "
              "are F32, otherwise 1e-2"};
}

double Tolerance(const Options& options, client::Dtype activation_dtype) {
  if (options.Has("tolerance")) {
    return options.Number("tolerance");
  }
  return activation_dtype == client::Dtype::kFloat32 ? 1e-5 : 1e-2;
}

}  // namespace expertmesh::command
