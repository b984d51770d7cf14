// Weights as they lie in a checkpoint, before a backend packs them.
#ifndef EXPERTMESH_COMMON_MODEL_EXPERT_WEIGHTS_H_
#define EXPERTMESH_COMMON_MODEL_EXPERT_WEIGHTS_H_

#include <cstdint>

#include "common/tensor/matrix_view.h"

namespace expertmesh {

// One expert (or the shared experts of a layer taken as one). What its ExpertOptions say it does
// not have is empty. Matrices may be quantised (MatrixView::scales); biases are [1, outputs] of an
// activation type.
struct ExpertWeights {
  MatrixView gate;  // [intermediate_size, d_model]
  MatrixView up;    // [intermediate_size, d_model]
  MatrixView down;  // [d_model, intermediate_size]
  MatrixView gate_bias = {};
  MatrixView up_bias = {};
  MatrixView down_bias = {};
};

// One gate. Never quantised.
struct GateWeights {
  MatrixView weight;            // [num_experts, d_model]
  MatrixView logit_bias = {};   // [1, num_experts], empty when the layer has none
  MatrixView select_bias = {};  // [1, num_experts], empty when the layer has none
  MatrixView noise = {};        // [num_experts, d_model] of Noise::kLearnedNormal, else empty
  MatrixView shared_gate = {};  // [1, d_model], empty when the layer has none
};

// Part `index` of `count` equal parts of the intermediate dimension. 0 of 1: the whole expert.
struct IntermediateSlice {
  uint32_t index = 0;
  uint32_t count = 1;

  friend bool operator==(const IntermediateSlice&, const IntermediateSlice&) = default;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MODEL_EXPERT_WEIGHTS_H_
