// What is added to the scores of a layer's experts for selection only; weights come from the scores
// as they were.
#ifndef EXPERTMESH_COMMON_GATE_SELECT_BIAS_H_
#define EXPERTMESH_COMMON_GATE_SELECT_BIAS_H_

#include "absl/types/span.h"

namespace expertmesh::gate {

// [num_experts] each.
struct SelectBias {
  // The checkpoint's; empty: it has none, which is as if all were 0.
  absl::Span<const float> checkpoint = {};
  // What is in force in its place; empty: the checkpoint's is.
  absl::Span<const float> live = {};
};

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_SELECT_BIAS_H_
