// First stage: the rows of all requests of a batch, side by side.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_GATHER_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_GATHER_STAGE_H_

#include "router_service/batch/batch.h"

namespace expertmesh::batch {

// Fills batch->hidden_states from its requests: the one copy of a row on its way through the
// router.
void GatherRows(Batch* batch);

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_GATHER_STAGE_H_
