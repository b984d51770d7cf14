// The steps of reference routing that choose among the experts of one token.
#ifndef EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_CHOICE_H_
#define EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_CHOICE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "common/model/routing_options.h"
#include "common/tensor/dtype.h"

namespace expertmesh::reference {

// The largest of some values, largest first; the lower index first among equals.
struct Largest {
  std::vector<uint32_t> ids;
  // How far ahead of the largest value left out; infinite when none was.
  float margin = std::numeric_limits<float>::infinity();
};

Largest SelectLargest(absl::Span<const float> values, size_t count);

// Gives the experts of all but the best groups `masked_choice`. Returns the margin between groups.
float LimitGroups(const RoutingOptions& routing, std::vector<float>* choices);

// Choice::kSparseMixer for one token. `rounding`: the type every step is rounded to.
struct SparseMix {
  std::vector<uint32_t> ids;
  std::vector<float> weights;
  // The smallest margin among the two selections and all comparisons with epsilon.
  float margin = 0.0f;
};

SparseMix MixSparsely(const RoutingOptions& routing, Dtype rounding,
                      absl::Span<const float> logits);

}  // namespace expertmesh::reference

#endif  // EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_CHOICE_H_
