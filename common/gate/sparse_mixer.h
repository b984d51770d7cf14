// Choice::kSparseMixer: twice the best expert, each weighted among the experts whose logits come
// close to its own (Phi-3.5-MoE; SparseMixer at inference).
#ifndef EXPERTMESH_COMMON_GATE_SPARSE_MIXER_H_
#define EXPERTMESH_COMMON_GATE_SPARSE_MIXER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/tensor/dtype.h"

namespace expertmesh::gate {

// Routes one token: at least two logits, two ids, two weights. Each operation is rounded to
// `dtype`, as torch rounds operations on tensors of that type: the threshold, too. `row` is working
// memory.
void SparseMixer(absl::Span<const float> logits, float epsilon, Dtype dtype,
                 std::vector<float>* row, absl::Span<uint32_t> ids, absl::Span<float> weights);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_SPARSE_MIXER_H_
