// What a token keeps of itself: PassThrough::kComplement.
#ifndef EXPERTMESH_COMMON_GATE_COMPLEMENT_H_
#define EXPERTMESH_COMMON_GATE_COMPLEMENT_H_

#include <cstddef>

#include "absl/types/span.h"
#include "common/gate/routed_tokens.h"
#include "common/tensor/dtype.h"

namespace expertmesh::gate {

// Adds (1 - sum of its weights) times the hidden state to every token from `first` on, as many as
// `output` has room for.
//   hidden_states  [routed.tokens(), d_model] of `dtype`, an activation type
//   output         [tokens, d_model], in place
void AddComplements(const RoutedTokens& routed, const void* hidden_states, Dtype dtype,
                    size_t d_model, size_t first, absl::Span<float> output);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_COMPLEMENT_H_
