// One MoE layer whose experts live in a server of ggml's RPC backend: what llama.cpp does with a
// layer that it keeps on another machine.
#ifndef EXPERTMESH_TESTS_BENCH_GGML_RPC_LAYER_H_
#define EXPERTMESH_TESTS_BENCH_GGML_RPC_LAYER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace expertmesh::bench {

struct MoeShape {
  int64_t d_model = 0;
  int64_t intermediate = 0;
  int64_t experts = 0;
  int64_t top_k = 0;
};

// bf16, row-major, of one expert.
struct ExpertWeights {
  std::vector<uint16_t> gate;  // [intermediate, d_model]
  std::vector<uint16_t> up;    // [intermediate, d_model]
  std::vector<uint16_t> down;  // [d_model, intermediate]
};

// Hidden states of some tokens, and the experts each goes to.
struct RoutedRows {
  int64_t tokens = 0;
  std::vector<float> hidden;     // [tokens, d_model]
  std::vector<int32_t> experts;  // [tokens, top_k]
  std::vector<float> weights;    // [tokens, top_k]

  // That cross the wire for one request and its answer, without what the protocol adds.
  size_t bytes() const {
    return 2 * hidden.size() * sizeof(float) + experts.size() * sizeof(int32_t) +
           weights.size() * sizeof(float);
  }
};

// Not thread-safe. ggml aborts the process when its server goes away.
class RpcLayer {
 public:
  // Makes room for the weights on the server at `endpoint` (host:port), which must be there.
  static absl::StatusOr<std::unique_ptr<RpcLayer>> Create(const std::string& endpoint,
                                                          const MoeShape& shape);
  ~RpcLayer();
  RpcLayer(const RpcLayer&) = delete;
  RpcLayer& operator=(const RpcLayer&) = delete;

  void SetExpert(int64_t expert, const ExpertWeights& weights);

  // output [tokens, d_model] = the weighted sum of the experts of each token.
  absl::Status Compute(const RoutedRows& rows, float* output);

 private:
  // What a request of some number of tokens runs, made once.
  struct Graph {
    ggml_context* context = nullptr;
    ggml_backend_sched_t scheduler = nullptr;
    ggml_cgraph* nodes = nullptr;
    ggml_tensor* hidden = nullptr;
    ggml_tensor* experts = nullptr;
    ggml_tensor* weights = nullptr;
    ggml_tensor* output = nullptr;
  };

  explicit RpcLayer(const MoeShape& shape) : shape_(shape) {}

  absl::StatusOr<const Graph*> GraphFor(int64_t tokens);
  // The layer's tensors; nothing is allocated for them yet.
  void Describe(int64_t tokens, Graph* graph) const;

  const MoeShape shape_;
  ggml_backend_t remote_ = nullptr;
  // Never computes: ggml's scheduler wants it as the last resort.
  ggml_backend_t local_ = nullptr;
  ggml_context* context_ = nullptr;
  ggml_backend_buffer_t buffer_ = nullptr;
  ggml_tensor* gate_ = nullptr;  // [experts, intermediate, d_model]; ggml counts from the right.
  ggml_tensor* up_ = nullptr;
  ggml_tensor* down_ = nullptr;
  std::map<int64_t, Graph> graphs_;
};

}  // namespace expertmesh::bench

#endif  // EXPERTMESH_TESTS_BENCH_GGML_RPC_LAYER_H_
