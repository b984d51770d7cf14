// One batch of one layer, and what its stages make of it:
//
//   requests -> gather -> route -> plan -> dispatch -> combine -> answer
//                 |                          ^   |
//                 +-> shared experts         +---+ retry: what a node lost is planned and
//                                                  dispatched again
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_H_

#include <cstdint>
#include <memory>

#include "absl/time/time.h"
#include "common/gate/routed_tokens.h"
#include "common/tensor/aligned_buffer.h"
#include "router_service/batch/batch_requests.h"
#include "router_service/batch/environment.h"
#include "router_service/mesh/mesh_view.h"

namespace expertmesh::batch {

// When a batch came to the end of a stage, on the router's clock.
struct StageTimes {
  absl::Time closed;      // It left the queue.
  absl::Time routed;      // Its experts were chosen.
  absl::Time dispatched;  // Its plan was there.
  absl::Time received;    // Its last partial was.
};

// Each stage fills its own members, which are constant afterwards.
struct Batch {
  const BatchEnvironment* environment = nullptr;
  const LayerRuntime* layer = nullptr;
  // Taken when the batch starts; its epoch is that of the answers.
  std::shared_ptr<const mesh::MeshView> view;
  BatchRequests requests;
  // In whose trace the calls of nodes are, as nodes are told it; null: there is no trace.
  const ForwardJob* lead = nullptr;
  StageTimes times;
  // Gather: [requests.rows(), d_model] of the activation type.
  std::shared_ptr<AlignedBuffer> hidden_states;
  // Route.
  gate::RoutedTokens routed;

  uint32_t layer_index() const { return layer->description.layer; }
  const uint8_t* Row(size_t row) const {
    return hidden_states->data() + row * environment->row_bytes();
  }
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_H_
