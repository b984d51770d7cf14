// Tensors of a synthetic checkpoint, as they are stored: how many, of which types, and what is in
// them.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_TENSOR_H_
#define EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_TENSOR_H_

#include <cstdint>
#include <vector>

#include "common/checkpoint/model_layout.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/checkpoint/synthetic_options.h"

namespace expertmesh::checkpoint {

struct SyntheticTensor {
  // kNormal: normal with `deviation`. kOnes. The others belong to linears that shall have this
  // deviation when they are decoded: FP8 values and their scales, pairs of FP4 values and their
  // scales.
  enum class Content : uint8_t { kNormal, kOnes, kFp8, kFp8Scale, kFp4Pair, kFp4Scale };

  TensorSpec spec;
  Content content = Content::kNormal;
  float deviation = 0.0f;
  // Elements of the stored type.
  uint64_t elements = 0;
  uint64_t bytes = 0;
};

// The tensors that `declaration` is stored as: itself, or values and scales.
std::vector<SyntheticTensor> StoredTensors(const TensorDeclaration& declaration,
                                           const SyntheticOptions& options);

// Writes elements [begin, begin + count) of `tensor`; `begin` must be a multiple of 4. The same
// seed gives the same bytes.
void FillSynthetic(const SyntheticTensor& tensor, uint64_t seed, uint64_t begin, uint64_t count,
                   void* target);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_TENSOR_H_
