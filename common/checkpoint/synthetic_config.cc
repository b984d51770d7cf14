#include "common/checkpoint/synthetic_config.h"

#include <algorithm>
#include <numeric>

namespace expertmesh::checkpoint {

GroupedAttention SyntheticAttention(const SyntheticOptions& options) {
  const uint32_t head_dim = options.d_model < 256 ? 16 : 64;
  const uint32_t heads = std::max(1u, options.d_model / head_dim);
  return {heads, heads % 4 == 0 ? heads / 4 : heads, head_dim};
}

nlohmann::ordered_json SyntheticDecoder(const SyntheticOptions& options) {
  const GroupedAttention attention = SyntheticAttention(options);
  return {
      {"hidden_size", options.d_model},
      {"num_hidden_layers", options.num_layers},
      {"vocab_size", options.vocab_size},
      {"num_attention_heads", attention.heads},
      {"num_key_value_heads", attention.kv_heads},
      {"head_dim", attention.head_dim},
      {"hidden_act", "silu"},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 10000.0},
      {"max_position_embeddings", 4096},
      {"attention_bias", false},
      {"attention_dropout", 0.0},
      {"bos_token_id", 0},
      {"eos_token_id", 0},
      {"pad_token_id", nullptr},
      {"tie_word_embeddings", false},
      {"use_cache", true},
  };
}

uint32_t SyntheticTopK(const SyntheticOptions& options) { return options.top_k.value_or(2); }

uint32_t SyntheticSharedExperts(const SyntheticOptions& options) {
  return options.shared_experts.value_or(1);
}

uint32_t SyntheticDenseWidth(const SyntheticOptions& options) {
  return options.dense_intermediate_size > 0 ? options.dense_intermediate_size
                                             : 4 * options.intermediate_size;
}

std::vector<uint32_t> SyntheticDenseLayers(const SyntheticOptions& options) {
  std::vector<uint32_t> layers(std::min(options.dense_layers, options.num_layers));
  std::iota(layers.begin(), layers.end(), 0u);
  return layers;
}

}  // namespace expertmesh::checkpoint
