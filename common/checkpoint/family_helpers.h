// Parts of config.json that several families share. Used by the family_*.cc files only.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_FAMILY_HELPERS_H_
#define EXPERTMESH_COMMON_CHECKPOINT_FAMILY_HELPERS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/config_reader.h"
#include "common/checkpoint/families.h"
#include "common/model/model_description.h"
#include "nlohmann/json.hpp"

namespace expertmesh {

// Widest matrix side that is believed, vocabularies aside.
inline constexpr uint32_t kMaxWidth = 1u << 20;

// num_experts and top_k under any of their names.
absl::Status ReadExpertCounts(const ConfigReader& config, RoutingOptions* routing);

// n_group and topk_group; 1 each when absent. Call after ReadExpertCounts.
absl::Status ReadGroupLimit(const ConfigReader& config, RoutingOptions* routing);

// hidden_act must be silu.
absl::Status ReadActivation(const ConfigReader& config);

// One tensor of each layer; `suffix` follows "model.layers.{layer}.".
void AddEveryLayer(absl::string_view suffix, std::vector<uint64_t> shape, TensorKind kind,
                   ModelLayout* layout);

// input_layernorm and post_attention_layernorm of each layer.
void AddLayerNorms(ModelLayout* layout);

// A linear of each layer, [out, in], with a bias or without.
void AddLinear(absl::string_view suffix, uint64_t out, uint64_t in, bool bias, ModelLayout* layout);

struct GroupedAttention {
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
};
absl::StatusOr<GroupedAttention> ReadGroupedAttention(const ConfigReader& config, uint32_t d_model);
// Its four projections.
void AddGroupedAttention(const GroupedAttention& attention, bool bias, ModelLayout* layout);

// Attention of a synthetic model: small heads that fit any d_model.
GroupedAttention SyntheticAttention(const SyntheticOptions& options);

// The keys of config.json that all families share.
nlohmann::ordered_json SyntheticCommon(const SyntheticOptions& options,
                                       absl::string_view model_type,
                                       absl::string_view architecture);

// Width of layers without experts.
uint32_t SyntheticDenseWidth(const SyntheticOptions& options);

// INVALID_ARGUMENT when an option is set that `family` has no place for.
absl::Status RefuseOption(bool set, absl::string_view option, absl::string_view family);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_CHECKPOINT_FAMILY_HELPERS_H_
