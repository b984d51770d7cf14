// Slices of an expert's weights, and the memory that weights take in the checkpoint.
#ifndef EXPERTMESH_COMMON_MODEL_EXPERT_SLICE_H_
#define EXPERTMESH_COMMON_MODEL_EXPERT_SLICE_H_

#include <cstdint>

#include "common/model/expert_weights.h"

namespace expertmesh {

// The weights of one slice: an expert of its own, narrower one. The bias of down belongs to slice
// 0, so that the slices' outputs add up. The slice must divide the width of `weights`, and a down
// matrix of type kF4 into even widths.
ExpertWeights SliceOf(const ExpertWeights& weights, IntermediateSlice slice);

// Bytes of values, scales and biases.
uint64_t StoredBytes(const ExpertWeights& weights);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MODEL_EXPERT_SLICE_H_
