// What each replica of an expert is owed of its rows, so that over many batches it serves the share
// that it is to have.
#ifndef EXPERTMESH_ROUTER_SERVICE_PLAN_SHARE_ACCOUNTS_H_
#define EXPERTMESH_ROUTER_SERVICE_PLAN_SHARE_ACCOUNTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "router_service/mesh/placement.h"

namespace expertmesh::plan {

// The accounts of an expert's replicas add up to 0: what one has served beyond its share, others
// are owed. They outlive a change of placement where the expert has as many replicas as before: it
// is about few rows.
//
// A layer takes 4 bytes for each expert and for each replica that has a share. Nothing is allocated
// while layers, and replicas of each expert, are those of the call before. Not thread-safe.
class ShareAccounts {
 public:
  // `rows` more of `expert` are to be served: rows that each of its replicas is owed now, in their
  // order; what one serves is taken from it. Valid until the next call. `replicas` are those of
  // `layer`, and HasShares() of the expert's.
  absl::Span<float> Owe(uint32_t layer, const std::vector<mesh::ExpertReplicas>& replicas,
                        uint32_t expert, float rows);

  size_t MemoryBytes() const;

 private:
  absl::Span<float> Of(uint32_t layer, const std::vector<mesh::ExpertReplicas>& replicas,
                       uint32_t expert);

  struct Layer {
    std::vector<uint32_t> begin;  // [experts + 1] In `owed`.
    std::vector<float> owed;
  };
  std::vector<Layer> layers_;
};

// Whether shares say who serves the expert: it is whole, and there is a choice.
bool HasShares(const mesh::ExpertReplicas& replicas);

}  // namespace expertmesh::plan

#endif  // EXPERTMESH_ROUTER_SERVICE_PLAN_SHARE_ACCOUNTS_H_
