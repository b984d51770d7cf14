#include "tests/bench/ggml/rpc_layer.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "ggml-cpu.h"
#include "ggml-rpc.h"

namespace expertmesh::bench {
namespace {

// Far more than a layer has.
constexpr size_t kGraphNodes = 256;

// A context that holds descriptions of tensors only; their bytes are in buffers of a backend.
ggml_context* NewContext() {
  const size_t bytes =
      kGraphNodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(kGraphNodes, false);
  return ggml_init({.mem_size = bytes, .mem_buffer = nullptr, .no_alloc = true});
}

void SetPart(ggml_tensor* tensor, int64_t index, const std::vector<uint16_t>& values) {
  const size_t bytes = values.size() * sizeof(uint16_t);
  ggml_backend_tensor_set(tensor, values.data(), static_cast<size_t>(index) * bytes, bytes);
}

// [tokens, top_k, d_model] -> [tokens, d_model]: ggml adds tensors in pairs.
ggml_tensor* SumOverChoices(ggml_context* context, ggml_tensor* rows) {
  ggml_tensor* sum = nullptr;
  for (int64_t choice = 0; choice < rows->ne[1]; ++choice) {
    ggml_tensor* one = ggml_view_2d(context, rows, rows->ne[0], rows->ne[2], rows->nb[2],
                                    static_cast<size_t>(choice) * rows->nb[1]);
    sum = sum == nullptr ? one : ggml_add(context, sum, one);
  }
  // A view alone would not be contiguous.
  return rows->ne[1] == 1 ? ggml_cont(context, sum) : sum;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcLayer>> RpcLayer::Create(const std::string& endpoint,
                                                           const MoeShape& shape) {
  std::unique_ptr<RpcLayer> layer(new RpcLayer(shape));
  layer->remote_ = ggml_backend_rpc_init(endpoint.c_str(), 0);
  layer->local_ = ggml_backend_cpu_init();
  layer->context_ = NewContext();
  if (layer->remote_ == nullptr || layer->local_ == nullptr || layer->context_ == nullptr) {
    return absl::UnavailableError(absl::StrCat("no ggml RPC server at ", endpoint));
  }
  const auto tensor = [&](int64_t columns, int64_t rows) {
    return ggml_new_tensor_3d(layer->context_, GGML_TYPE_BF16, columns, rows, shape.experts);
  };
  layer->gate_ = tensor(shape.d_model, shape.intermediate);
  layer->up_ = tensor(shape.d_model, shape.intermediate);
  layer->down_ = tensor(shape.intermediate, shape.d_model);
  layer->buffer_ = ggml_backend_alloc_ctx_tensors(layer->context_, layer->remote_);
  if (layer->buffer_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the ggml RPC server at ", endpoint, " has no room for the weights"));
  }
  ggml_backend_buffer_set_usage(layer->buffer_, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  return layer;
}

RpcLayer::~RpcLayer() {
  for (auto& [tokens, graph] : graphs_) {
    ggml_backend_sched_free(graph.scheduler);
    ggml_free(graph.context);
  }
  ggml_backend_buffer_free(buffer_);
  ggml_free(context_);
  for (ggml_backend_t backend : {local_, remote_}) {
    if (backend != nullptr) {
      ggml_backend_free(backend);
    }
  }
}

void RpcLayer::SetExpert(int64_t expert, const ExpertWeights& weights) {
  SetPart(gate_, expert, weights.gate);
  SetPart(up_, expert, weights.up);
  SetPart(down_, expert, weights.down);
}

void RpcLayer::Describe(int64_t tokens, Graph* graph) const {
  ggml_context* const context = graph->context;
  graph->hidden = ggml_new_tensor_3d(context, GGML_TYPE_F32, shape_.d_model, 1, tokens);
  graph->experts = ggml_new_tensor_2d(context, GGML_TYPE_I32, shape_.top_k, tokens);
  graph->weights = ggml_new_tensor_3d(context, GGML_TYPE_F32, 1, shape_.top_k, tokens);
  for (ggml_tensor* input : {graph->hidden, graph->experts, graph->weights}) {
    ggml_set_input(input);
  }
  ggml_tensor* gate = ggml_mul_mat_id(context, gate_, graph->hidden, graph->experts);
  ggml_tensor* up = ggml_mul_mat_id(context, up_, graph->hidden, graph->experts);
  ggml_tensor* inner = ggml_swiglu_split(context, gate, up);
  ggml_tensor* rows = ggml_mul_mat_id(context, down_, inner, graph->experts);
  graph->output = SumOverChoices(context, ggml_mul(context, rows, graph->weights));
  ggml_set_output(graph->output);
  graph->nodes = ggml_new_graph_custom(context, kGraphNodes, false);
  ggml_build_forward_expand(graph->nodes, graph->output);
}

absl::StatusOr<const RpcLayer::Graph*> RpcLayer::GraphFor(int64_t tokens) {
  Graph& graph = graphs_[tokens];
  if (graph.context != nullptr) {
    return &graph;
  }
  graph.context = NewContext();
  Describe(tokens, &graph);
  // By the scheduler, as llama.cpp does: it numbers graphs, so that the server keeps the last one
  // and is only told to run it again.
  ggml_backend_t backends[] = {remote_, local_};
  graph.scheduler = ggml_backend_sched_new(backends, nullptr, 2, kGraphNodes, false, false);
  // Inputs go straight to where they are needed.
  for (ggml_tensor* input : {graph.hidden, graph.experts, graph.weights}) {
    ggml_backend_sched_set_tensor_backend(graph.scheduler, input, remote_);
  }
  if (!ggml_backend_sched_alloc_graph(graph.scheduler, graph.nodes)) {
    return absl::ResourceExhaustedError("the ggml RPC server has no room for the graph");
  }
  if (const int splits = ggml_backend_sched_get_n_splits(graph.scheduler); splits != 1) {
    return absl::InternalError(
        absl::StrCat("ggml cut the layer into ", splits, " parts; all of it should be remote"));
  }
  return &graph;
}

absl::Status RpcLayer::Compute(const RoutedRows& rows, float* output) {
  ASSIGN_OR_RETURN(const Graph* graph, GraphFor(rows.tokens));
  // Nothing waits before the last line.
  const auto set = [this](ggml_tensor* tensor, const void* data) {
    ggml_backend_tensor_set_async(remote_, tensor, data, 0, ggml_nbytes(tensor));
  };
  set(graph->hidden, rows.hidden.data());
  set(graph->experts, rows.experts.data());
  set(graph->weights, rows.weights.data());
  if (ggml_backend_sched_graph_compute_async(graph->scheduler, graph->nodes) !=
      GGML_STATUS_SUCCESS) {
    return absl::InternalError("the ggml RPC server did not compute the layer");
  }
  ggml_backend_tensor_get_async(remote_, graph->output, output, 0, ggml_nbytes(graph->output));
  ggml_backend_synchronize(remote_);
  return absl::OkStatus();
}

}  // namespace expertmesh::bench
