// A digest of an expert's weights as they lie in the checkpoint: equal for equal checkpoints,
// whichever process read them.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_EXPERT_DIGEST_H_
#define EXPERTMESH_COMMON_CHECKPOINT_EXPERT_DIGEST_H_

#include <cstdint>

#include "common/model/expert_weights.h"

namespace expertmesh::checkpoint {

// XXH3, 64 bits, over gate, up, down and their biases in this order: type and shape of each, its
// values (of one that is stored transposed, column by column), and the scales of its blocks. What
// lies between them in a fused or stacked tensor plays no part. It finds damage and mix-ups; it is
// no defence against somebody who wants a collision. Reads every byte once. Thread-safe.
uint64_t DigestOf(const ExpertWeights& weights);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_EXPERT_DIGEST_H_
