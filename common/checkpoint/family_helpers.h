// Parts of config.json, and of the tensors they ask for, that several families share. Used by the
// family_*.cc files only.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_FAMILY_HELPERS_H_
#define EXPERTMESH_COMMON_CHECKPOINT_FAMILY_HELPERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/families.h"
#include "common/json/json_reader.h"
#include "common/model/model_description.h"

namespace expertmesh::checkpoint {

// Widest matrix side that is believed, vocabularies aside.
inline constexpr uint32_t kMaxWidth = 1u << 20;
inline constexpr uint32_t kMaxLayers = 4096;
inline constexpr uint32_t kMaxExperts = 65536;

// Layers of a decoder are called this.
inline constexpr Stack kDecoder[] = {{.layer = "{model}layers.{layer}."}};

// --- Routing and experts ---

// The gate of most families: logits in the activations' dtype, softmax over all experts in float32,
// weights in the activations' dtype.
RoutingOptions SoftmaxRouting();

// num_experts and top_k under any of their names.
absl::Status ReadExpertCounts(const JsonReader& config, RoutingOptions* routing);
// num_experts only, for a family whose top_k is fixed.
absl::Status ReadNumExperts(const JsonReader& config, uint32_t top_k, RoutingOptions* routing);

// n_group and topk_group; 1 each when absent. Call after ReadExpertCounts.
absl::Status ReadGroupLimit(const JsonReader& config, RoutingOptions* routing);

// norm_topk_prob: w / (sum + epsilon), or nothing.
absl::Status ReadRenormalise(const JsonReader& config, bool fallback, float epsilon,
                             RoutingOptions* routing);

// A string under `key` must be `only` when it is there.
absl::Status Expect(const JsonReader& config, absl::string_view key, absl::string_view only);
// hidden_act, or what the family calls it, must be silu.
absl::Status ReadSilu(const JsonReader& config, absl::string_view key = "hidden_act");

// d_model and the width of an expert, under `width_key`.
absl::Status ReadExpert(const JsonReader& config, absl::string_view width_key,
                        const ModelLayout& layout, ExpertOptions* expert);
// `count_key` shared experts as wide as a routed one; none when it is absent.
absl::Status ReadSharedExperts(const JsonReader& config, absl::string_view count_key,
                               MoeLayerDescription* layer);

// --- Which layers have experts ---

// One element per layer.
using Pattern = std::vector<bool>;

// num_hidden_layers, all with experts.
absl::StatusOr<Pattern> EveryLayer(const JsonReader& config);
// From first_k_dense_replace on, those whose index moe_layer_freq divides.
absl::StatusOr<Pattern> AfterDenseLayers(const JsonReader& config, uint32_t dense_by_default);
// Every decoder_sparse_step-th, but not those in mlp_only_layers.
absl::StatusOr<Pattern> EverySparseStep(const JsonReader& config);

// --- Tensors ---

// Collects the tensors whose names begin with `prefix`.
class TensorList {
 public:
  TensorList(std::string prefix, std::vector<TensorDeclaration>* target)
      : prefix_(std::move(prefix)), target_(target) {}

  // NAME.weight [outputs, inputs] and, with a bias, NAME.bias.
  void Linear(absl::string_view name, uint64_t outputs, uint64_t inputs, bool bias = false);
  // NAME.weight and, with a bias, NAME.bias.
  void Norm(absl::string_view name, uint64_t width, bool bias = false);
  // NAME.gate_proj, up_proj and down_proj.
  void Glu(absl::string_view name, uint64_t d_model, uint64_t width, bool bias = false);
  void Add(absl::string_view name, std::vector<uint64_t> shape, TensorKind kind,
           uint64_t inputs = 0);

 private:
  const std::string prefix_;
  std::vector<TensorDeclaration>* const target_;
};

// Tensors of a layer but those of its experts. `sparse`: it has experts.
using LayerTensors = absl::FunctionRef<void(uint32_t index, bool sparse, TensorList* tensors)>;

// Appends a stack of layers. `moe` describes those that have experts.
void AddStack(uint32_t stack, const MoeLayerDescription& moe, const Pattern& sparse,
              LayerTensors tensors, ModelLayout* layout);

// embed_tokens, the last norm and, unless tied, lm_head; the last two with biases or without.
struct DecoderEnds {
  absl::string_view norm = "norm";
  bool norm_bias = false;
  bool head_bias = false;
};
void AddDecoderEnds(const DecoderEnds& ends, ModelLayout* layout);

// Width of layers without experts; 0 when there are none.
absl::StatusOr<uint32_t> ReadDenseWidth(const JsonReader& config, const Pattern& sparse,
                                        absl::string_view key = "intermediate_size");

struct GroupedAttention {
  uint64_t heads = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;

  uint64_t q_width() const { return heads * head_dim; }
  uint64_t kv_width() const { return kv_heads * head_dim; }
};
absl::StatusOr<GroupedAttention> ReadGroupedAttention(const JsonReader& config, uint32_t d_model);

// self_attn's four projections, as o_name calls the last.
void AddGroupedAttention(const GroupedAttention& attention, uint64_t d_model, bool qkv_bias,
                         bool o_bias, TensorList* tensors, absl::string_view o_name = "o_proj");

// input_layernorm and post_attention_layernorm.
void AddLayerNorms(uint64_t d_model, TensorList* tensors, bool bias = false);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_FAMILY_HELPERS_H_
