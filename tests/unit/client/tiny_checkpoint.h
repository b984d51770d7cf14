// A model small enough to compute by hand.
#ifndef EXPERTMESH_TESTS_UNIT_CLIENT_TINY_CHECKPOINT_H_
#define EXPERTMESH_TESTS_UNIT_CLIENT_TINY_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/checkpoint/moe_checkpoint.h"

namespace expertmesh {

// Two experts of width 1 over d_model 2, and a shared one, small enough to compute by hand.
class TinyCheckpoint final : public checkpoint::MoeCheckpoint {
 public:
  TinyCheckpoint() {
    model_.family = "tiny";
    model_.d_model = 2;
    model_.num_layers = 2;
    MoeLayerDescription layer;
    layer.layer = 1;
    layer.routing.num_experts = 2;
    layer.routing.top_k = 1;
    layer.expert.d_model = 2;
    layer.expert.intermediate_size = 1;
    layer.shared_intermediate_size = 1;
    model_.layers = {layer};
  }

  MoeLayerDescription& layer() { return model_.layers[0]; }

  const ModelDescription& model() const override { return model_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  absl::StatusOr<GateWeights> Gate(uint32_t) const override {
    GateWeights gate{View(gate_, 2, 2)};
    gate.logit_bias = View(logit_bias_, 1, 2);
    gate.shared_gate = View(shared_gate_, 1, 2);
    return gate;
  }
  absl::StatusOr<ExpertWeights> Expert(uint32_t, uint32_t expert) const override {
    const float* const weights = experts_[expert];
    // Expert 1 lies transposed: its down projection is stored [1, 2] by columns.
    MatrixView down = View(weights + 4, 2, 1);
    if (expert == 1) {
      down.row_stride = 1;
      down.col_stride = 2;
    }
    return ExpertWeights{View(weights, 1, 2), View(weights + 2, 1, 2), down};
  }
  absl::StatusOr<ExpertWeights> Shared(uint32_t) const override {
    return ExpertWeights{View(shared_, 1, 2), View(shared_ + 2, 1, 2), View(shared_ + 4, 2, 1)};
  }

 private:
  static MatrixView View(const float* data, size_t rows, size_t cols) {
    return MatrixView::RowMajor(data, Dtype::kF32, rows, cols);
  }

  ModelDescription model_;
  std::string fingerprint_;
  const float gate_[4] = {1, 0, 0, 1};
  const float logit_bias_[2] = {0, 5};
  const float shared_gate_[2] = {0.5f, -1};
  // gate row, up row, down column.
  const float experts_[2][6] = {{1, 0, 0, 1, 1, 2}, {0, 1, 1, 0, 3, -1}};
  const float shared_[6] = {1, 1, 1, -1, 1, 1};
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_UNIT_CLIENT_TINY_CHECKPOINT_H_
