// Small batches that no request waits for: what CrossChecker compares, and what shows whether a
// node that was ejected serves again.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_PROBE_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_PROBE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/time/time.h"
#include "common/tensor/dtype.h"
#include "router_service/mesh/node_batch.h"

namespace expertmesh::mesh {

class NodeLink;

// One assignment for each of a few rows.
struct ProbeRequest {
  uint32_t layer = 0;
  uint32_t expert = 0;
  float weight = 1.0f;
  uint64_t epoch = 0;
  // On the node.
  absl::Duration timeout;
  uint32_t rows = 1;
  uint32_t d_model = 0;
  // [rows, d_model] of `dtype`.
  const uint8_t* hidden_states = nullptr;
  Dtype dtype = Dtype::kF32;
};

// Partials come as float32.
struct NodeProbe final : NodeBatch {
  using OnDone = std::function<void(const NodeProbe& probe, const absl::Status& status)>;
  explicit NodeProbe(OnDone callback) : on_done(std::move(callback)) {}
  bool CanGoElsewhere(const MeshView&) const override { return true; }  // It need not be answered.
  void Done(const absl::Status& status) override { on_done(*this, status); }

  const OnDone on_done;
};

// Sends one; `on_done` is called as NodeBatch::Done.
void SendProbe(const ProbeRequest& request, NodeLink* link, NodeProbe::OnDone on_done);

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_NODE_PROBE_H_
