// What a decoder computes around its experts, as plain data read from config.json.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_DECODER_CONFIG_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_DECODER_CONFIG_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/decoder/rope.h"
#include "common/checkpoint/model_layout.h"

namespace expertmesh::decoder {

// Normalisation of queries and keys before RoPE: none, each head by itself (Qwen3), or all heads of
// a token as one vector (OLMoE).
enum class QueryKeyNorm { kNone, kPerHead, kWhole };

// Grouped-query attention: `kv_heads` keys and values, each for heads / kv_heads queries in a row.
struct GroupedAttentionOptions {
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  bool qkv_bias = false;
  bool o_bias = false;
  QueryKeyNorm norm = QueryKeyNorm::kNone;
  // Queries, keys and values are clamped to +-clip; 0: they are not.
  float clip = 0.0f;
  // A token sees this many tokens, itself included; 0: all.
  uint32_t window = 0;
  float scale = 1.0f;
};

// Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values of a token are kept as
// one vector of `kv_rank`, and one rotated key of `rope` that all heads share.
struct LatentAttentionOptions {
  uint32_t heads = 0;
  uint32_t q_rank = 0;  // 0: queries are not compressed.
  uint32_t kv_rank = 0;
  uint32_t nope = 0;
  uint32_t rope = 0;
  uint32_t value = 0;
  bool bias = false;
  float scale = 1.0f;
};

struct DecoderConfig {
  std::string family;
  uint32_t d_model = 0;
  uint32_t num_layers = 0;
  uint32_t vocab_size = 0;
  // Most tokens of a sequence: Rope::context.
  uint32_t context_length = 0;
  float norm_epsilon = 0.0f;
  // Width of layers without experts; 0 when there are none.
  uint32_t dense_width = 0;
  std::variant<GroupedAttentionOptions, LatentAttentionOptions> attention;
  Rope rope;
  // Tokens that end a text, ascending.
  std::vector<uint32_t> end_tokens;
};

// Reads `directory`/config.json (and end tokens from generation_config.json, where there is one).
// `layout` was read from the same folder.
//   UNIMPLEMENTED     a family that has experts in the mesh but cannot be decoded here (the message
//                     lists those that can), or attention of a kind that is not known here.
//   INVALID_ARGUMENT  a contradictory or wrongly typed value; the message names file and key.
absl::StatusOr<DecoderConfig> ReadDecoderConfig(const std::string& directory,
                                                const checkpoint::ModelLayout& layout);

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_DECODER_CONFIG_H_
