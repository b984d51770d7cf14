// Second stage: the gate picks experts and weights.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_ROUTE_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_ROUTE_STAGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/gate/gate.h"
#include "router_service/batch/batch.h"

namespace expertmesh::batch {

// Working memory of a pooled run. Not thread-safe.
class RouteStage {
 public:
  // Fills batch->routed from its hidden states and the bias of its view, and counts the load.
  absl::Status Run(Batch* batch);

  size_t MemoryBytes() const;

 private:
  std::vector<gate::RequestTokens> requests_;
  gate::GateScratch scratch_;
  std::vector<uint32_t> counts_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_ROUTE_STAGE_H_
