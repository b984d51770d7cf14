// A model in memory: a few MoE layers with seeded gates, for tests of router and node.
#ifndef EXPERTMESH_TESTS_SUPPORT_FAKE_CHECKPOINT_H_
#define EXPERTMESH_TESTS_SUPPORT_FAKE_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/moe_checkpoint.h"

namespace expertmesh {

struct FakeCheckpointOptions {
  uint32_t num_layers = 4;
  std::vector<uint32_t> moe_layers = {1, 3};
  uint32_t d_model = 8;
  uint32_t num_experts = 6;
  uint32_t top_k = 2;
  uint32_t intermediate_size = 4;
  // The shared expert has the weights of expert 0, or weights of its own when its width is given.
  bool shared_expert = false;
  uint32_t shared_intermediate_size = 0;
  bool shared_gate = false;
  // The type of the weights, as config.json would say.
  Dtype dtype = Dtype::kF32;
  // Logits, scores and weights are rounded to the type of activations.
  bool rounded_routing = false;
  // The routed experts have it.
  Activation activation = Activation::kSilu;
  bool expert_bias = false;
  ApplyWeight apply = ApplyWeight::kOutput;
  // What every weight of an expert is; null: they are random.
  std::function<float(uint32_t layer, uint32_t expert)> expert_weight = nullptr;
  std::string fingerprint = "aaaa";
};

// Weights are the same for the same options.
class FakeCheckpoint final : public checkpoint::MoeCheckpoint {
 public:
  explicit FakeCheckpoint(const FakeCheckpointOptions& options = {})
      : options_(options), fingerprint_(options.fingerprint) {
    model_.family = "fake";
    model_.d_model = options.d_model;
    model_.num_layers = options.num_layers;
    model_.dtype = options.dtype;
    for (const uint32_t index : options.moe_layers) {
      MoeLayerDescription layer;
      layer.layer = index;
      layer.routing.num_experts = options.num_experts;
      layer.routing.top_k = options.top_k;
      layer.routing.renormalise = Renormalise::kSum;
      layer.routing.apply = options.apply;
      if (options.rounded_routing) {
        layer.routing.logit_dtype = LogitDtype::kModel;
        layer.routing.score_dtype = ScoreDtype::kModel;
        layer.routing.weight_dtype = WeightDtype::kModel;
      }
      layer.expert = {options.d_model, options.intermediate_size, options.activation};
      layer.expert.bias = options.expert_bias;
      layer.shared_intermediate_size = SharedIntermediate();
      layer.shared_gate = options.shared_gate;
      model_.layers.push_back(layer);
      gates_[index] = Random(index, size_t{options.num_experts} * options.d_model);
      for (uint32_t expert = 0; expert < options.num_experts; ++expert) {
        experts_[{index, expert}] = Weights(index, expert, options.intermediate_size);
      }
      shared_[index] = options.shared_intermediate_size == 0
                           ? experts_[{index, 0}]
                           : Weights(index, options.num_experts, SharedIntermediate());
    }
  }

  const ModelDescription& model() const override { return model_; }
  const std::string& fingerprint() const override { return fingerprint_; }

  absl::StatusOr<GateWeights> Gate(uint32_t layer) const override {
    const auto it = gates_.find(layer);
    if (it == gates_.end()) {
      return absl::NotFoundError(absl::StrCat("layer ", layer, " is no MoE layer"));
    }
    GateWeights gate{MatrixView::RowMajor(it->second.data(), Dtype::kF32, options_.num_experts,
                                          options_.d_model)};
    if (options_.shared_gate) {  // The weights of expert 0 serve as the shared experts' gate, too.
      gate.shared_gate = MatrixView::RowMajor(it->second.data(), Dtype::kF32, 1, options_.d_model);
    }
    return gate;
  }

  absl::StatusOr<ExpertWeights> Expert(uint32_t layer, uint32_t expert) const override {
    const auto it = experts_.find({layer, expert});
    if (it == experts_.end()) {
      return absl::NotFoundError(absl::StrCat("layer ", layer, " has no expert ", expert));
    }
    if (layer == broken_layer_) {
      return absl::DataLossError("model.safetensors is truncated");
    }
    return Views(it->second, options_.intermediate_size);
  }

  absl::StatusOr<ExpertWeights> Shared(uint32_t layer) const override {
    if (!options_.shared_expert) {
      return absl::NotFoundError(absl::StrCat("layer ", layer, " has no shared expert"));
    }
    const auto it = shared_.find(layer);
    if (it == shared_.end()) {
      return absl::NotFoundError(absl::StrCat("layer ", layer, " is no MoE layer"));
    }
    return Views(it->second, SharedIntermediate());
  }

  // What was read turns out not to be what the files held (DATA_LOSS). `on_told` is called whenever
  // a reader hears that; may be null. Set before use.
  void ShortenFiles(std::function<void()> on_told = nullptr) {
    shortened_ = true;
    on_told_ = std::move(on_told);
  }

  // Experts of this layer cannot be read (DATA_LOSS). Set before use.
  void BreakLayer(uint32_t layer) { broken_layer_ = layer; }

 private:
  absl::Status ConfirmViews(absl::Span<const MatrixView>) const override {
    if (!shortened_) {
      return absl::OkStatus();
    }
    if (on_told_ != nullptr) {
      on_told_();
    }
    return absl::DataLossError("model.safetensors was shortened");
  }

  // 0: there is no shared expert.
  uint32_t SharedIntermediate() const {
    const uint32_t own = options_.shared_intermediate_size;
    return !options_.shared_expert ? 0 : own > 0 ? own : options_.intermediate_size;
  }

  ExpertWeights Views(const std::vector<float>& values, uint32_t intermediate) const {
    const size_t part = size_t{intermediate} * options_.d_model;
    const float* const data = values.data();
    const auto view = [](const float* at, size_t rows, size_t cols) {
      return MatrixView::RowMajor(at, Dtype::kF32, rows, cols);
    };
    return ExpertWeights{view(data, intermediate, options_.d_model),
                         view(data + part, intermediate, options_.d_model),
                         view(data + 2 * part, options_.d_model, intermediate)};
  }

  std::vector<float> Weights(uint32_t layer, uint32_t expert, uint32_t intermediate) const {
    const size_t count = 3 * size_t{intermediate} * options_.d_model;
    return options_.expert_weight != nullptr
               ? std::vector<float>(count, options_.expert_weight(layer, expert))
               : Random(1000 + 100 * layer + expert, count);
  }

  static std::vector<float> Random(uint32_t seed, size_t count) {
    std::mt19937 random(seed);
    std::vector<float> values(count);
    for (float& value : values) {
      value = static_cast<float>(random()) / 4294967296.0f - 0.5f;
    }
    return values;
  }

  const FakeCheckpointOptions options_;
  const std::string fingerprint_;
  ModelDescription model_;
  std::map<uint32_t, std::vector<float>> gates_;
  std::map<std::pair<uint32_t, uint32_t>, std::vector<float>> experts_;
  std::map<uint32_t, std::vector<float>> shared_;
  int64_t broken_layer_ = -1;
  bool shortened_ = false;
  std::function<void()> on_told_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_FAKE_CHECKPOINT_H_
