#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/decoder/moe_layers.h"
#include "common/base/process.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "common/base/thread_pool.h"
#include "common/gate/complement.h"
#include "common/gate/gate.h"
#include "common/shared_experts/shared_experts.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"

namespace expertmesh::decoder {
namespace {

// One MoE layer, loaded.
struct LocalLayer {
  MoeLayerDescription description;
  std::unique_ptr<const gate::Gate> gate;
  std::vector<float> select_bias;  // [num_experts] or empty.
  std::vector<std::shared_ptr<const experts::PackedExpert>> experts;
  std::unique_ptr<const shared_experts::SharedExperts> shared;  // Null when the layer has none.
};

// Threads beside the caller's; null when there are none.
std::unique_ptr<ThreadPool> MakeHelpers(int threads) {
  const int all = threads > 0 ? threads : AvailableCores();
  return all > 1 ? std::make_unique<ThreadPool>(all - 1) : nullptr;
}

class LocalMoeLayers final : public MoeLayers {
 public:
  LocalMoeLayers(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                 experts::Backend* backend, int threads)
      : checkpoint_(std::move(checkpoint)), backend_(backend), helpers_(MakeHelpers(threads)) {}

  absl::Status Load();
  absl::StatusOr<MoeResult> Compute(const MoeCall& call) override;

 private:
  absl::StatusOr<LocalLayer> LoadLayer(const MoeLayerDescription& description) const;
  // Into routed_, as a router that gets the call as one request.
  absl::Status Route(const LocalLayer& layer, const MoeCall& call);
  // As nodes.
  absl::Status RunExperts(const LocalLayer& layer, const MoeCall& call, float* output);
  absl::Status AddShared(const LocalLayer& layer, const MoeCall& call, absl::Span<float> output);
  absl::StatusOr<MoeResult> Run(const LocalLayer& layer, const MoeCall& call);

  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  experts::Backend* const backend_;
  const std::unique_ptr<ThreadPool> helpers_;
  absl::flat_hash_map<uint32_t, LocalLayer> layers_;
  // Used by one call at a time; kept to avoid allocating.
  AlignedBuffer hidden_;  // [tokens, d_model] of the backend's type.
  gate::GateScratch gate_scratch_;
  gate::RoutedTokens routed_;
  std::vector<const experts::PackedExpert*> experts_;
  shared_experts::SharedExpertsScratch shared_scratch_;
  AlignedBuffer shared_output_;
};

absl::Status LocalMoeLayers::Load() {
  for (const MoeLayerDescription& description : checkpoint_->model().layers) {
    absl::StatusOr<LocalLayer> layer = LoadLayer(description);
    if (!layer.ok()) {
      return WithContext(absl::StrCat("MoE layer ", description.layer), layer.status());
    }
    layers_[description.layer] = *std::move(layer);
  }
  return absl::OkStatus();
}

absl::StatusOr<LocalLayer> LocalMoeLayers::LoadLayer(const MoeLayerDescription& description) const {
  LocalLayer layer;
  layer.description = description;
  ASSIGN_OR_RETURN(const GateWeights weights, checkpoint_->Gate(description.layer));
  ASSIGN_OR_RETURN(layer.gate,
                   gate::Gate::Create(weights, description.routing, backend_->compute_dtype()));
  ASSIGN_OR_RETURN(layer.select_bias, gate::ReadSelectBias(weights, description.routing));
  for (uint32_t expert = 0; expert < description.routing.num_experts; ++expert) {
    ASSIGN_OR_RETURN(const ExpertWeights expert_weights,
                     checkpoint_->Expert(description.layer, expert));
    ASSIGN_OR_RETURN(std::shared_ptr<const experts::PackedExpert> packed,
                     backend_->Pack(description.expert, expert_weights, {}));
    RETURN_IF_ERROR(checkpoint_->ConfirmRead(expert_weights));
    layer.experts.push_back(std::move(packed));
  }
  ASSIGN_OR_RETURN(layer.shared, shared_experts::SharedExperts::Load(*checkpoint_, description,
                                                                     weights, backend_));
  RETURN_IF_ERROR(checkpoint_->ConfirmRead(weights));
  return layer;
}

absl::Status LocalMoeLayers::Route(const LocalLayer& layer, const MoeCall& call) {
  gate::RequestTokens request;
  request.tokens = call.tokens;
  request.group_sizes = call.group_sizes;
  request.token_ids = call.token_ids;
  request.seed = layer.description.routing.seed;
  return layer.gate->Route(hidden_.data(), backend_->compute_dtype(), {&request, 1},
                           {.checkpoint = layer.select_bias}, &gate_scratch_, &routed_,
                           helpers_.get());
}

absl::Status LocalMoeLayers::RunExperts(const LocalLayer& layer, const MoeCall& call,
                                        float* output) {
  experts_.clear();
  for (const uint32_t expert : routed_.expert_ids) {
    experts_.push_back(layer.experts[expert].get());
  }
  experts::GroupedBatch batch;
  batch.hidden_states = hidden_.data();
  batch.rows = call.tokens;
  batch.d_model = layer.gate->d_model();
  batch.row_begin = routed_.token_begin;
  batch.experts = experts_;
  batch.weights = routed_.weights;
  batch.apply = layer.description.routing.apply;
  batch.partials = output;
  return experts::Compute(*backend_, batch);
}

absl::Status LocalMoeLayers::AddShared(const LocalLayer& layer, const MoeCall& call,
                                       absl::Span<float> output) {
  shared_output_.Resize(output.size() * sizeof(float));
  RETURN_IF_ERROR(layer.shared->Compute(hidden_.data(), call.tokens, &shared_scratch_,
                                        shared_output_.as<float>()));
  AddElements(Dtype::kF32, shared_output_.data(), output.size(), output.data());
  return absl::OkStatus();
}

absl::StatusOr<MoeResult> LocalMoeLayers::Run(const LocalLayer& layer, const MoeCall& call) {
  // Hidden states as they would arrive in the mesh, for experts and gate alike.
  const Dtype dtype = backend_->compute_dtype();
  hidden_.Resize(call.hidden.size() * BytesOf(dtype));
  ConvertElements(Dtype::kF32, call.hidden.data(), dtype, hidden_.data(), call.hidden.size());
  RETURN_IF_ERROR(Route(layer, call));
  MoeResult result;
  result.output.resize(call.hidden.size());
  RETURN_IF_ERROR(RunExperts(layer, call, result.output.data()));
  if (layer.shared != nullptr) {
    RETURN_IF_ERROR(AddShared(layer, call, absl::MakeSpan(result.output)));
  }
  if (layer.description.routing.pass_through == PassThrough::kComplement) {
    gate::AddComplements(routed_, hidden_.data(), dtype, layer.gate->d_model(), 0,
                         absl::MakeSpan(result.output));
  }
  result.expert_ids = routed_.expert_ids;
  return result;
}

absl::StatusOr<MoeResult> LocalMoeLayers::Compute(const MoeCall& call) {
  const auto found = layers_.find(call.layer);
  if (found == layers_.end()) {
    return absl::NotFoundError(absl::StrCat("layer ", call.layer, " is not a MoE layer"));
  }
  absl::StatusOr<MoeResult> result = Run(found->second, call);
  if (!result.ok()) {
    return WithContext(absl::StrCat("MoE layer ", call.layer), result.status());
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
