// How long a batch took in each stage, for metrics.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_STAGE_RECORD_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_STAGE_RECORD_H_

#include "router_service/batch/batch.h"

namespace expertmesh::batch {

// `batch` has been answered just now, and has all of its times.
void RecordStages(const Batch& batch);

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_STAGE_RECORD_H_
