#include "client/cpp/command/routed_hidden.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/command/mesh.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh::command {
namespace {

// What a wanted expert's logit is lifted to, and all others are pushed down to, within a noise that
// is about 1 wide. The push is for sigmoids, whose upper end leaves a selection bias to decide.
constexpr float kLift = 8;
constexpr float kPush = 4;

// Indices of the `count` largest of `values`, best first.
std::vector<uint32_t> Best(const std::vector<double>& values, size_t count) {
  std::vector<uint32_t> indices(values.size());
  std::iota(indices.begin(), indices.end(), 0);
  std::partial_sort(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(count),
                    indices.end(), [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
  indices.resize(count);
  return indices;
}

}  // namespace

const std::vector<std::string>& RoutingKindNames() {
  static const auto* const names =
      new std::vector<std::string>{"random", "uniform", "k-hot", "zipf"};
  return *names;
}

RoutingKind ParseRoutingKind(const std::string& name) {
  const std::vector<std::string>& names = RoutingKindNames();
  const auto found = std::find(names.begin(), names.end(), name);
  EXPERTMESH_CHECK(found != names.end());
  return static_cast<RoutingKind>(found - names.begin());
}

absl::StatusOr<HiddenMaker> HiddenMaker::Create(RoutingKind kind,
                                                const checkpoint::MoeCheckpoint& checkpoint,
                                                uint32_t layer, client::Dtype dtype) {
  HiddenMaker maker(dtype, checkpoint.model().d_model);
  maker.kind_ = kind;
  const MoeLayerDescription* description = checkpoint.model().FindLayer(layer);
  if (description == nullptr) {
    return absl::NotFoundError(absl::StrCat("layer ", layer, " is no MoE layer"));
  }
  const RoutingOptions& routing = description->routing;
  if (routing.choice != Choice::kTopK || routing.top_k % routing.topk_group != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, " does not choose the best top_k experts; --routing random works"));
  }
  maker.top_k_ = routing.top_k;
  maker.groups_ = routing.n_group;
  maker.groups_of_token_ = routing.topk_group;
  ASSIGN_OR_RETURN(const GateWeights weights, checkpoint.Gate(layer));
  maker.gate_ = DecodeMatrix(weights.weight);
  RETURN_IF_ERROR(checkpoint.ConfirmRead(weights));
  maker.all_.resize(maker.d_model_);
  for (size_t row = 0; row < weights.weight.rows; ++row) {
    float* values = maker.gate_.data() + row * maker.d_model_;
    const float norm = std::sqrt(std::inner_product(values, values + maker.d_model_, values, 0.0f));
    std::transform(values, values + maker.d_model_, values,
                   [norm](float value) { return value / std::max(norm, 1e-6f); });
    for (size_t i = 0; i < maker.d_model_; ++i) {
      maker.all_[i] += values[i];
    }
  }
  // Popular experts lie anywhere, not all on the first node.
  std::vector<uint32_t> ranks(routing.num_experts);
  std::iota(ranks.begin(), ranks.end(), 1);
  std::mt19937_64 random(17);
  std::shuffle(ranks.begin(), ranks.end(), random);
  for (const uint32_t rank : ranks) {
    maker.popularity_.push_back(kind == RoutingKind::kZipf ? -std::log(double{1} * rank) : 0);
  }
  maker.hot_ = maker.Wanted(&random);
  return maker;
}

// Sampling without replacement: the largest of log(popularity) plus Gumbel noise. Groups likewise,
// and as many experts of each, so that no other group is as good.
std::vector<uint32_t> HiddenMaker::Wanted(std::mt19937_64* random) const {
  std::uniform_real_distribution<double> uniform(1e-12, 1.0);
  std::vector<double> keys(popularity_);
  for (double& key : keys) {
    key -= std::log(-std::log(uniform(*random)));
  }
  const size_t size = keys.size() / groups_;
  std::vector<double> group_keys;
  for (size_t group = 0; group < groups_; ++group) {
    group_keys.push_back(*std::max_element(&keys[group * size], &keys[group * size] + size));
  }
  std::vector<uint32_t> wanted;
  for (const uint32_t group : Best(group_keys, groups_of_token_)) {
    const std::vector<double> members(&keys[group * size], &keys[group * size] + size);
    for (const uint32_t member : Best(members, top_k_ / groups_of_token_)) {
      wanted.push_back(static_cast<uint32_t>(group * size) + member);
    }
  }
  return wanted;
}

client::Matrix HiddenMaker::Make(size_t tokens, uint64_t seed) const {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(tokens * d_model_);
  for (float& value : values) {
    value = normal(random);
  }
  for (size_t token = 0; token < tokens && kind_ != RoutingKind::kRandom; ++token) {
    float* row = values.data() + token * d_model_;
    for (size_t i = 0; i < d_model_; ++i) {
      row[i] -= kPush * all_[i];
    }
    for (const uint32_t expert : kind_ == RoutingKind::kKHot ? hot_ : Wanted(&random)) {
      const float* direction = gate_.data() + size_t{expert} * d_model_;
      for (size_t i = 0; i < d_model_; ++i) {
        row[i] += (kLift + kPush) * direction[i];
      }
    }
  }
  return ToMatrix(dtype_, tokens, d_model_, std::move(values));
}

}  // namespace expertmesh::command
