// Top-k selection over one token's row, and the two orders in which ties are settled.
#ifndef EXPERTMESH_COMMON_GATE_SELECTION_H_
#define EXPERTMESH_COMMON_GATE_SELECTION_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace expertmesh::gate {

// Which of several equal values is chosen.
enum class TieOrder {
  // The lower index, and results always best first.
  kLowestIndex,
  // What torch.topk does on a CPU, for parity with a reference run there: not stable, but
  // reproducible
  // by making the same calls of libstdc++ with the same comparison.
  kTorchCpu,
};

// Working memory of SelectTopK; grows to the largest row seen. Contents mean nothing between calls.
struct SelectionScratch {
  std::vector<int32_t> keys;
  std::vector<uint64_t> order;
  std::vector<std::pair<float, int64_t>> pairs;
  std::vector<uint32_t> wanted;
  std::vector<uint32_t> chosen;
};

// Writes the indices of the k = ids.size() largest of `values`; 1 <= k <= values.size(). NaN counts
// as larger than every number, as in torch; -0 equals +0. Always k distinct indices, whatever the
// values. `sorted` matters for kTorchCpu only: false leaves torch's order of an unsorted top-k (its
// set is the same). Linear in values.size().
void SelectTopK(absl::Span<const float> values, TieOrder ties, bool sorted,
                SelectionScratch* scratch, absl::Span<uint32_t> ids);

// Whether `ids`, in any order, are the set that SelectTopK would write; `ids` are distinct. With
// kLowestIndex cheaper than that.
bool IsTopK(absl::Span<const float> values, TieOrder ties, SelectionScratch* scratch,
            absl::Span<const uint32_t> ids);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_SELECTION_H_
