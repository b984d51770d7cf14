// What all batches of a router share.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_ENVIRONMENT_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_ENVIRONMENT_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/shared_pool.h"
#include "common/base/thread_pool.h"
#include "common/experts/backend.h"
#include "common/tensor/buffer_pool.h"
#include "router_service/balance/routing_recorder.h"
#include "router_service/batch/batch_part.h"
#include "router_service/batch/layer_runtime.h"
#include "router_service/batch/partials_layout.h"
#include "router_service/mesh/cross_check.h"
#include "router_service/mesh/fleet.h"
#include "router_service/mesh/wire_encoding.h"
#include "router_service/metrics/router_metrics.h"
#include "router_service/plan/node_plan.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::batch {

// Who computes shared experts.
enum class SharedExpertsAt {
  kRouter,
  // Nodes that hold them, where there are any.
  kNodes,
  // These nodes and the router, by what they have to do.
  kBoth,
};

// Outlives the batches.
struct BatchEnvironment {
  mesh::Fleet* fleet = nullptr;
  ThreadPool* pool = nullptr;
  Clock* clock = nullptr;
  experts::Backend* backend = nullptr;
  metrics::RouterMetrics* metrics = nullptr;
  mesh::CrossChecker* cross_checker = nullptr;
  // Null: nothing is recorded.
  balance_control::RoutingRecorder* recorder = nullptr;
  // Null: nothing is traced.
  tracing::Tracer* tracer = nullptr;
  const PartialsLayout* layout = nullptr;
  // Memory of batches that are over.
  plan::NodePlanPool* node_plans = nullptr;
  SharedPool<BatchPart>* parts = nullptr;
  BufferPool* buffers = nullptr;
  uint32_t d_model = 0;
  // Type of rows inside the mesh.
  Dtype activation_dtype = Dtype::kF32;
  // Frames to nodes are cut to about this size, in bytes; at least one row goes into each.
  uint64_t max_frame_bytes = 1 << 20;
  // Rows of a node's answer to one batch times their size stay below this, in bytes.
  uint64_t max_node_batch_bytes = 32 << 20;
  // Nodes tried for one assignment, the first included.
  uint32_t max_attempts = 3;
  SharedExpertsAt shared_experts = SharedExpertsAt::kRouter;
  // What links carry that no exception is made for.
  mesh::WireEncoding wire;
  // Parameters of shared experts times rows that this router has to compute, where it computes some
  // beside nodes.
  std::atomic<uint64_t>* shared_work = nullptr;
  // Batches of at most so many tokens are worked on where they are: on the thread that brought the
  // last request, and on the one that brought the last partials.
  uint64_t inline_tokens = 0;
  // After the last answer of a batch, which is over by then: its tokens, and when it was closed.
  std::function<void(const LayerRuntime* layer, uint64_t tokens, absl::Time closed_at)> on_finished;

  // Bytes of a row of activations.
  size_t row_bytes() const { return size_t{d_model} * BytesOf(activation_dtype); }
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_ENVIRONMENT_H_
