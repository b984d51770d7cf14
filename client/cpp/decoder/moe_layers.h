// The seam between a decoder and its experts: who computes the MoE layers.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_MOE_LAYERS_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_MOE_LAYERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cpp/expertmesh/client.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"

namespace expertmesh::decoder {

struct MoeCall {
  uint32_t layer = 0;
  absl::Span<const float> hidden;  // [tokens, d_model]
  size_t tokens = 0;               // At least 1.
  absl::Span<const uint32_t> token_ids;
  // Tokens of each sequence, in order.
  absl::Span<const uint32_t> group_sizes;
};

struct MoeResult {
  // [tokens, d_model]
  std::vector<float> output;
  // The expert of each assignment, token by token; empty unless routing was asked for.
  std::vector<uint32_t> expert_ids;
  client::ForwardTiming timing;
};

// One call at a time.
class MoeLayers {
 public:
  virtual ~MoeLayers() = default;
  virtual absl::StatusOr<MoeResult> Compute(const MoeCall& call) = 0;
};

// By the mesh behind `client`, which must outlive it. Each call may take `timeout`; its errors are
// those of Client::Forward and name the layer. `dtype` is how hidden states travel.
std::unique_ptr<MoeLayers> MakeMeshMoeLayers(client::Client* client, client::Dtype dtype,
                                             absl::Duration timeout, bool return_routing);

// In this process, without a mesh: what the mesh is measured against. Routes as a router without
// flags does, and computes as nodes do: bit for bit what a mesh of one node answers that computes
// in the same type and sends partials as float32. Loads all experts into `backend`, which must
// outlive it. Gates run on `threads`; 0: one per core.
absl::StatusOr<std::unique_ptr<MoeLayers>> MakeLocalMoeLayers(
    std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint, experts::Backend* backend,
    int threads);

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_MOE_LAYERS_H_
