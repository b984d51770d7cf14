// What the router tells of itself.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_DESCRIBE_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_DESCRIBE_H_

#include <cstdint>

#include "common/checkpoint/moe_checkpoint.h"
#include "common/tensor/dtype.h"
#include "expertmesh/v1/router.pb.h"
#include "router_service/mesh/fleet.h"
#include "router_service/metrics/router_metrics.h"
#include "router_service/serve/forward_service.h"

namespace expertmesh::serve {

v1::DescribeModelResponse DescribeModel(const checkpoint::MoeCheckpoint& checkpoint,
                                        const ServedLayers& layers, Dtype activation_dtype,
                                        uint64_t max_message_bytes, bool strict);

// Sets the metrics that say how the mesh is.
void SetMeshMetrics(const mesh::MeshSummary& mesh, metrics::RouterMetrics* metrics);

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_DESCRIBE_H_
