// Which experts a node holds, as flags say it.
#ifndef EXPERTMESH_EXPERT_SERVICE_EXPERT_SELECTION_H_
#define EXPERTMESH_EXPERT_SERVICE_EXPERT_SELECTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"

namespace expertmesh::node {

// Experts of one layer, all as the same slice of the intermediate dimension.
struct LayerExperts {
  uint32_t layer = 0;
  std::vector<uint32_t> experts;  // Ascending, each once; ids as in MoeLayerDescription.
  IntermediateSlice slice;

  friend bool operator==(const LayerExperts&, const LayerExperts&) = default;
};

// The flags as given; empty means "not given".
struct SelectionFlags {
  // --layers: "3-10,12". Not given: every MoE layer.
  std::string layers;
  // --experts: "0-31,40", of every selected layer. Not given: all of them.
  std::string experts;
  // --shard: "i/n", i from 0. The experts of each selected layer are dealt to n shards as
  // contiguous runs whose lengths differ by one at most. Excludes --experts.
  std::string shard;
  // --replicas: how many shards hold each run; shard i holds the runs i, i-1 ... i-replicas+1
  // (mod n). Needs --shard when it is not 1.
  uint32_t replicas = 1;
  // --shared-experts: also the shared experts of the selected layers, whole whatever --slice says.
  bool shared_experts = false;
  // --slice: "i/n", the part of the intermediate dimension. Not given: whole experts.
  std::string slice;
};

// Ascending by layer; at least one expert in all. Two entries for a layer of whose other experts
// only a slice is held.
//   INVALID_ARGUMENT  names the flag, its value and what is accepted.
absl::StatusOr<std::vector<LayerExperts>> SelectExperts(const SelectionFlags& flags,
                                                        const ModelDescription& model);

// "i/n" with i < n.
struct Fraction {
  uint32_t index = 0;
  uint32_t count = 1;
};
absl::StatusOr<Fraction> ParseFraction(absl::string_view flag, absl::string_view value);

// NOT_FOUND when there is no such layer (`layer` is null then) or one of the experts is not in it.
absl::Status CheckExperts(const MoeLayerDescription* layer, const LayerExperts& wanted);

// INVALID_ARGUMENT when the expert cannot be cut so.
absl::Status CheckSlice(const MoeLayerDescription& layer, uint32_t expert, IntermediateSlice slice);

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_EXPERT_SELECTION_H_
