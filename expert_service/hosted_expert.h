// What a node holds of one expert, and of one layer.
#ifndef EXPERTMESH_EXPERT_SERVICE_HOSTED_EXPERT_H_
#define EXPERTMESH_EXPERT_SERVICE_HOSTED_EXPERT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "common/experts/backend.h"
#include "expert_service/expert_packer.h"
#include "expert_service/memory_ledger.h"

namespace expertmesh::node {

// One expert. Immutable; its memory is freed, and the ledger told, with its last owner.
class HostedExpert {
 public:
  struct Parts {
    std::shared_ptr<MemoryLedger> ledger;
    uint64_t ledger_id = 0;
    ExpertSource source;
    uint64_t bytes = 0;
    uint64_t digest = 0;
    // Called when it is about to go; may be empty.
    std::function<void(const HostedExpert*)> on_gone = nullptr;
  };

  // `packed` is null where ResidentExperts have it.
  HostedExpert(Parts parts, std::shared_ptr<const experts::PackedExpert> packed);
  ~HostedExpert();
  HostedExpert(const HostedExpert&) = delete;
  HostedExpert& operator=(const HostedExpert&) = delete;

  // Null where ResidentExperts have it.
  const experts::PackedExpert* packed() const { return packed_.get(); }
  const ExpertSource& source() const { return parts_.source; }
  IntermediateSlice slice() const { return parts_.source.slice; }
  uint64_t ledger_id() const { return parts_.ledger_id; }
  // What it holds when it is packed.
  uint64_t bytes() const { return parts_.bytes; }
  // DigestOf its slice of the weights, as they were when they were read first.
  uint64_t digest() const { return parts_.digest; }

 private:
  const Parts parts_;
  std::shared_ptr<const experts::PackedExpert> packed_;
};

// What is held of one layer at one moment. Immutable. A batch keeps the one it was accepted with,
// and thereby its experts.
struct HostedLayer {
  // Belongs to the checkpoint.
  const MoeLayerDescription* description = nullptr;
  // [MoeLayerDescription::hostable_experts()], the shared experts last; null where not held.
  std::vector<std::shared_ptr<const HostedExpert>> experts;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_HOSTED_EXPERT_H_
