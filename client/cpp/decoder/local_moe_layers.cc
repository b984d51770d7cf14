#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/decoder/moe_layers.h"
#include "client/cpp/reference/reference_routing.h"
#include "client/cpp/reference/reference_scores.h"
#include "common/base/status_macros.h"
#include "common/experts/linear.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/decode_matrix.h"
#include "common/tensor/dtype.h"

namespace expertmesh::decoder {
namespace {

// One MoE layer, loaded.
struct LocalLayer {
  MoeLayerDescription description;
  std::unique_ptr<const experts::Linear>
      gate;                        // Logits, and the shared gate's product behind them.
  std::vector<float> select_bias;  // [num_experts] or empty.
  bool shared_gate = false;
  std::vector<std::shared_ptr<const experts::PackedExpert>> experts;
  std::shared_ptr<const experts::PackedExpert> shared;  // Null when the layer has none.
};

// A matrix as a model has it that computes in another type.
struct RoundedMatrix {
  RoundedMatrix(const MatrixView& from, DType dtype) : values(DecodeMatrix(from)) {
    for (float& value : values) {
      value = reference::RoundReference(dtype, value);
    }
    view = MatrixView::RowMajor(values.data(), DType::kF32, from.rows, from.cols);
  }

  std::vector<float> values;
  MatrixView view;  // Refers to `values`.
};

class LocalMoeLayers final : public MoeLayers {
 public:
  LocalMoeLayers(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                 experts::Backend* backend, int threads)
      : checkpoint_(std::move(checkpoint)), backend_(backend), team_(threads) {}

  absl::Status Load();
  absl::StatusOr<MoeResult> Compute(const MoeCall& call) override;

 private:
  absl::StatusOr<LocalLayer> LoadLayer(const MoeLayerDescription& description) const;
  std::vector<reference::ReferenceRouting> Route(const LocalLayer& layer, const MoeCall& call,
                                                 absl::Span<const float> logits) const;
  absl::Status RunExperts(const LocalLayer& layer, const MoeCall& call,
                          absl::Span<const reference::ReferenceRouting> routings,
                          MoeResult* result);
  absl::Status AddShared(const LocalLayer& layer, const MoeCall& call,
                         absl::Span<const float> logits, MoeResult* result);
  experts::GroupedBatch BatchOf(const MoeCall& call) const;

  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  experts::Backend* const backend_;
  experts::LinearTeam team_;
  absl::flat_hash_map<uint32_t, LocalLayer> layers_;
  // Used during one call only (hidden states in the backend's type, and a batch's lists); kept to
  // avoid allocating.
  AlignedBuffer hidden_;
  AlignedBuffer partials_;
  std::vector<uint32_t> row_begin_;
  std::vector<const experts::PackedExpert*> experts_;
  std::vector<float> weights_;
};

absl::Status LocalMoeLayers::Load() {
  for (const MoeLayerDescription& description : checkpoint_->model().layers) {
    if (const std::string random = reference::RandomPart(description.routing); !random.empty()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "layer ", description.layer, " is routed at random (", random, ") and needs a router"));
    }
    ASSIGN_OR_RETURN(layers_[description.layer], LoadLayer(description));
  }
  return absl::OkStatus();
}

absl::StatusOr<LocalLayer> LocalMoeLayers::LoadLayer(const MoeLayerDescription& description) const {
  LocalLayer layer;
  layer.description = description;
  ASSIGN_OR_RETURN(const GateWeights gate, checkpoint_->Gate(description.layer));
  const DType dtype = backend_->compute_dtype();
  const DType logits = description.routing.logit_dtype == LogitDType::kModel ? dtype : DType::kF32;
  const RoundedMatrix weight(gate.weight, logits);
  const RoundedMatrix bias(gate.logit_bias, logits);
  const RoundedMatrix shared_gate(gate.shared_gate, dtype);
  std::vector<experts::Linear::Part> parts = {{weight.view, bias.view}};
  if (!gate.shared_gate.empty()) {
    layer.shared_gate = true;
    parts.push_back({shared_gate.view});
  }
  // Scores decide between experts: float32, as in the router.
  ASSIGN_OR_RETURN(layer.gate, experts::Linear::Pack(DType::kF32, parts));
  if (!gate.select_bias.empty()) {
    layer.select_bias = DecodeMatrix(gate.select_bias);
  }
  for (uint32_t expert = 0; expert < description.routing.num_experts; ++expert) {
    ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint_->Expert(description.layer, expert));
    ASSIGN_OR_RETURN(std::shared_ptr<const experts::PackedExpert> packed,
                     backend_->Pack(description.expert, weights, {}));
    layer.experts.push_back(std::move(packed));
  }
  if (description.shared_intermediate_size > 0) {
    ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint_->Shared(description.layer));
    ExpertOptions options;
    options.d_model = checkpoint_->model().d_model;
    options.intermediate_size = description.shared_intermediate_size;
    ASSIGN_OR_RETURN(layer.shared, backend_->Pack(options, weights, {}));
  }
  return layer;
}

std::vector<reference::ReferenceRouting> LocalMoeLayers::Route(
    const LocalLayer& layer, const MoeCall& call, absl::Span<const float> logits) const {
  const size_t experts = layer.description.routing.num_experts;
  std::vector<reference::ReferenceRouting> routings;
  size_t begin = 0;
  for (const uint32_t count : call.group_sizes) {
    reference::ReferenceGroup group;
    group.logits = logits.subspan(begin * experts, count * experts);
    group.select_bias = layer.select_bias;
    group.token_ids = call.token_ids.subspan(begin, count);
    group.activation_dtype = backend_->compute_dtype();
    for (reference::ReferenceRouting& token :
         reference::RouteReference(layer.description.routing, group)) {
      routings.push_back(std::move(token));
    }
    begin += count;
  }
  return routings;
}

experts::GroupedBatch LocalMoeLayers::BatchOf(const MoeCall& call) const {
  experts::GroupedBatch batch;
  batch.hidden_states = hidden_.data();
  batch.rows = call.tokens;
  batch.d_model = call.hidden.size() / call.tokens;
  batch.row_begin = row_begin_;
  batch.experts = experts_;
  batch.weights = weights_;
  return batch;
}

absl::Status LocalMoeLayers::RunExperts(const LocalLayer& layer, const MoeCall& call,
                                        absl::Span<const reference::ReferenceRouting> routings,
                                        MoeResult* result) {
  row_begin_.assign(1, 0);
  experts_.clear();
  weights_.clear();
  for (const reference::ReferenceRouting& token : routings) {
    for (const uint32_t expert : token.expert_ids) {
      experts_.push_back(layer.experts[expert].get());
      result->expert_ids.push_back(expert);
    }
    weights_.insert(weights_.end(), token.weights.begin(), token.weights.end());
    row_begin_.push_back(static_cast<uint32_t>(experts_.size()));
  }
  experts::GroupedBatch batch = BatchOf(call);
  batch.apply = layer.description.routing.apply;
  batch.partials = result->output.data();
  return experts::Compute(*backend_, batch);
}

absl::Status LocalMoeLayers::AddShared(const LocalLayer& layer, const MoeCall& call,
                                       absl::Span<const float> gates, MoeResult* result) {
  row_begin_.clear();
  for (uint32_t row = 0; row <= call.tokens; ++row) {
    row_begin_.push_back(row);
  }
  experts_.assign(call.tokens, layer.shared.get());
  weights_.assign(call.tokens, 1.0f);
  for (size_t row = 0; row < gates.size(); ++row) {
    const float product = reference::RoundReference(backend_->compute_dtype(), gates[row]);
    weights_[row] =
        reference::RoundReference(backend_->compute_dtype(), 1.0f / (1.0f + std::exp(-product)));
  }
  partials_.Resize(call.hidden.size() * sizeof(float));
  experts::GroupedBatch batch = BatchOf(call);
  batch.partials = partials_.as<float>();
  RETURN_IF_ERROR(experts::Compute(*backend_, batch));
  for (size_t i = 0; i < call.hidden.size(); ++i) {
    result->output[i] += partials_.as<float>()[i];
  }
  return absl::OkStatus();
}

absl::StatusOr<MoeResult> LocalMoeLayers::Compute(const MoeCall& call) {
  const auto found = layers_.find(call.layer);
  if (found == layers_.end()) {
    return absl::NotFoundError(absl::StrCat("layer ", call.layer, " is not a MoE layer"));
  }
  const LocalLayer& layer = found->second;
  const size_t outputs = layer.gate->outputs();
  const size_t experts = layer.description.routing.num_experts;
  // Hidden states as they would arrive in the mesh, for experts and gate alike.
  const DType dtype = backend_->compute_dtype();
  hidden_.Resize(call.hidden.size() * BytesOf(dtype));
  ConvertElements(DType::kF32, call.hidden.data(), dtype, hidden_.data(), call.hidden.size());
  std::vector<float> rounded(call.hidden.size());
  ConvertElements(dtype, hidden_.data(), DType::kF32, rounded.data(), rounded.size());
  std::vector<float> products(call.tokens * outputs);
  team_.Multiply(*layer.gate, call.tokens, rounded.data(), products.data());
  std::vector<float> logits(call.tokens * experts);
  std::vector<float> gates;
  for (size_t row = 0; row < call.tokens; ++row) {
    const float* const from = products.data() + row * outputs;
    std::copy(from, from + experts, logits.data() + row * experts);
    if (layer.shared_gate) {
      gates.push_back(from[experts]);
    }
  }
  MoeResult result;
  result.output.resize(call.hidden.size());
  RETURN_IF_ERROR(RunExperts(layer, call, Route(layer, call, logits), &result));
  if (layer.shared != nullptr) {
    RETURN_IF_ERROR(AddShared(layer, call, gates, &result));
  }
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MoeLayers>> MakeLocalMoeLayers(
    std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint, experts::Backend* backend,
    int threads) {
  auto layers = std::make_unique<LocalMoeLayers>(std::move(checkpoint), backend, threads);
  RETURN_IF_ERROR(layers->Load());
  return layers;
}

}  // namespace expertmesh::decoder
