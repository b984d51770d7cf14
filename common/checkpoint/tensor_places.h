// Where the weights of a MoE layer lie in a checkpoint, as data. A storage is one way to lay a
// layer out; a family lists the ways its checkpoints are found in, and each of them becomes
// MatrixViews without a copy.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_TENSOR_PLACES_H_
#define EXPERTMESH_COMMON_CHECKPOINT_TENSOR_PLACES_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace expertmesh::checkpoint {

// Which outputs of the stored matrix are meant: gate and up often share one.
enum class Part : uint8_t { kWhole, kFirstHalf, kSecondHalf, kEven, kOdd };

// How the experts of a layer share a tensor. kPerExpert: they do not, the name has an {expert}.
// kLeading: [num_experts, ...]. kRows: [num_experts * rows, columns].
enum class Stacking : uint8_t { kPerExpert, kLeading, kRows };

// kPlain: the tensor NAME itself; when it is F8_E4M3, NAME_scale_inv holds a scale for each block.
// kMxfp4: NAME_blocks, U8 [..., outputs, inputs / 32, 16], and NAME_scales, U8 [..., outputs,
// inputs / 32].
enum class Encoding : uint8_t { kPlain, kMxfp4 };

// One matrix [outputs, inputs], or one bias [outputs].
struct TensorPlace {
  // Behind the name of the layer (Family::stacks); empty: there is none.
  absl::string_view name = {};
  Part part = Part::kWhole;
  Stacking stacking = Stacking::kPerExpert;
  // Stored as [inputs, outputs].
  bool transposed = false;
  Encoding encoding = Encoding::kPlain;

  bool empty() const { return name.empty(); }
  // The stored matrix has twice the outputs of the meant one.
  bool halved() const { return part != Part::kWhole; }
};

// Places of an ExpertWeights.
struct ExpertPlaces {
  TensorPlace gate = {};
  TensorPlace up = {};
  TensorPlace down = {};
  TensorPlace gate_bias = {};
  TensorPlace up_bias = {};
  TensorPlace down_bias = {};
};

struct Storage {
  absl::string_view gate = {};         // [num_experts, d_model]
  absl::string_view logit_bias = {};   // [num_experts]
  absl::string_view select_bias = {};  // [num_experts]
  bool select_bias_is_row = false;     // [1, num_experts], rather.
  absl::string_view shared_gate = {};  // [1, d_model]
  ExpertPlaces experts = {};
  ExpertPlaces shared = {};
};

// Three matrices of their own, outputs first.
constexpr ExpertPlaces Separate(absl::string_view gate, absl::string_view up,
                                absl::string_view down) {
  return {.gate = {.name = gate}, .up = {.name = up}, .down = {.name = down}};
}

// Gate and up one after the other in one matrix: [2 * intermediate_size, d_model] and
// [d_model, intermediate_size], behind a leading num_experts when `stacking` says so.
constexpr ExpertPlaces Fused(absl::string_view gate_up, absl::string_view down,
                             Stacking stacking = Stacking::kLeading) {
  return {.gate = {.name = gate_up, .part = Part::kFirstHalf, .stacking = stacking},
          .up = {.name = gate_up, .part = Part::kSecondHalf, .stacking = stacking},
          .down = {.name = down, .stacking = stacking}};
}

// As Fused, with inputs first: [num_experts, d_model, 2 * intermediate_size] and
// [num_experts, intermediate_size, d_model].
constexpr ExpertPlaces FusedTransposed(absl::string_view gate_up, absl::string_view down) {
  ExpertPlaces places = Fused(gate_up, down);
  places.gate.transposed = true;
  places.up.transposed = true;
  places.down.transposed = true;
  return places;
}

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_TENSOR_PLACES_H_
