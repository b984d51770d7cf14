// Which node's copy of an expert is to be believed, judged by digests of the weights.
//
// Every node says a digest for each expert that it holds, the shared ones of a layer included. Who
// differs from this router's own checkpoint is damaged, and is not used. Until the checkpoint has
// been asked about an expert whose holders differ, and for good where it cannot be read, one digest
// is chosen and only who has it is used: that of more than half of the holders; else the one that
// was in use before; else that of the first holder in placement order. So copies that differ are
// never used side by side.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_WEIGHT_TRUST_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_WEIGHT_TRUST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/checkpoint/digest_cache.h"
#include "common/model/model_description.h"
#include "expertmesh/internal/v1/expert.pb.h"
#include "router_service/mesh/placement.h"

namespace expertmesh::mesh {

// What one node says it holds.
struct NodeHoldings {
  NodeIndex node = 0;
  std::string address;
  absl::Span<const v1::HostedExperts* const> hosted;
};

// A copy of an expert that is not used.
struct DamagedExpert {
  NodeIndex node = 0;
  uint32_t layer = 0;
  uint32_t expert = 0;
  std::string reason;

  friend bool operator==(const DamagedExpert&, const DamagedExpert&) = default;
};

// Not thread-safe.
class WeightTrust {
 public:
  // `model` must outlive it.
  explicit WeightTrust(const ModelDescription* model) : model_(model) {}

  struct Verdict {
    // By node as given, then layer, then expert.
    std::vector<DamagedExpert> damaged;
    // Not yet looked up in the checkpoint: those whose holders differ, and those whose holders are
    // alike.
    std::vector<checkpoint::ExpertSliceId> disputed;
    std::vector<checkpoint::ExpertSliceId> unverified;
    // Addresses of nodes that hold experts and say no digests: too old. They are believed.
    std::vector<std::string> silent;
  };

  // `nodes` are in placement order. Experts and slices that the model does not have are left out.
  Verdict Judge(absl::Span<const NodeHoldings> nodes);

  // The checkpoint's digest; none when it cannot be read. True when that changes what the last
  // Judge said.
  bool Learn(const checkpoint::ExpertSliceId& id, std::optional<uint64_t> digest);

 private:
  struct Knowledge {
    bool asked = false;
    std::optional<uint64_t> checkpoint;
    // In use since the last Judge.
    std::optional<uint64_t> in_use;
    bool disputed = false;
  };
  struct Copy {
    const NodeHoldings* holder = nullptr;
    uint64_t digest = 0;
  };
  using Copies = absl::flat_hash_map<checkpoint::ExpertSliceId, std::vector<Copy>>;

  Copies Collect(absl::Span<const NodeHoldings> nodes, std::vector<std::string>* silent) const;
  // Which of the copies that differ is used while the checkpoint does not say.
  static uint64_t Choose(const std::vector<Copy>& copies, std::optional<uint64_t> in_use);
  static std::string Reason(const Knowledge& known, const std::vector<Copy>& copies,
                            uint64_t chosen);

  const ModelDescription* const model_;
  absl::flat_hash_map<checkpoint::ExpertSliceId, Knowledge> known_;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_WEIGHT_TRUST_H_
