#include "tests/bench/baselines/local_layer.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/experts/backend_factory.h"
#include "common/experts/compute_dtype.h"

namespace expertmesh::bench {

absl::StatusOr<LocalLayer> LocalLayer::Load(const TargetOptions& options,
                                            absl::FunctionRef<bool(uint32_t expert)> holds) {
  const checkpoint::MoeCheckpoint& checkpoint = *options.checkpoint;
  const MoeLayerDescription* description = checkpoint.model().FindLayer(options.layer);
  if (description == nullptr) {
    return absl::NotFoundError(absl::StrCat("layer ", options.layer, " is no MoE layer"));
  }
  if (description->shared_gate) {
    return absl::UnimplementedError("the benchmark has no shared experts with a gate");
  }
  LocalLayer layer;
  layer.description = *description;
  layer.d_model = checkpoint.model().d_model;
  ASSIGN_OR_RETURN(layer.dtype, experts::ChooseComputeDtype("auto", checkpoint.model().dtype));
  experts::BackendOptions backend;
  backend.compute_dtype = layer.dtype;
  backend.threads = options.threads;
  ASSIGN_OR_RETURN(layer.backend, experts::MakeBackend("cpu", backend));
  ASSIGN_OR_RETURN(const GateWeights gate, checkpoint.Gate(options.layer));
  ASSIGN_OR_RETURN(layer.gate, gate::Gate::Create(gate, description->routing, layer.dtype));
  ASSIGN_OR_RETURN(layer.select_bias, gate::ReadSelectBias(gate, description->routing));
  layer.experts.resize(description->routing.num_experts);
  for (uint32_t expert = 0; expert < layer.experts.size(); ++expert) {
    if (holds(expert)) {
      ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint.Expert(options.layer, expert));
      ASSIGN_OR_RETURN(layer.experts[expert],
                       layer.backend->Pack(description->expert, weights, {}));
    }
  }
  if (description->shared_intermediate_size > 0) {
    const ExpertOptions shared = {layer.d_model, description->shared_intermediate_size};
    ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint.Shared(options.layer));
    ASSIGN_OR_RETURN(layer.shared, layer.backend->Pack(shared, weights, {}));
  }
  return layer;
}

absl::Status LocalLayer::Route(const client::Matrix& hidden, gate::RoutedTokens* routed) const {
  thread_local gate::GateScratch scratch;
  const gate::RequestTokens request = {hidden.rows(), {}, {}, 0};
  return gate->Route(hidden.bytes().data(), dtype, {&request, 1}, {.checkpoint = select_bias},
                     &scratch, routed);
}

absl::Status LocalLayer::AddShared(const void* hidden, size_t rows, float* output) const {
  if (shared == nullptr) {
    return absl::OkStatus();
  }
  std::vector<uint32_t> row_begin(rows + 1);
  std::iota(row_begin.begin(), row_begin.end(), 0);
  const std::vector<const experts::PackedExpert*> packed(rows, shared.get());
  const std::vector<float> weights(rows, 1.0f);
  AlignedBuffer sums(rows * d_model * sizeof(float));
  RETURN_IF_ERROR(experts::Compute(*backend, {hidden, rows, d_model, row_begin, packed, weights,
                                              ApplyWeight::kOutput, sums.as<float>()}));
  for (size_t i = 0; i < rows * d_model; ++i) {
    output[i] += sums.as<float>()[i];
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::bench
