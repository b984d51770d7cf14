#include "client/cpp/decoder/decoder_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/families.h"
#include "common/json/json_reader.h"

namespace expertmesh::decoder {
namespace {

constexpr uint32_t kMaxHeads = 1u << 16;
constexpr uint32_t kMaxHeadDim = 1u << 14;

// What a family's config.json means when it does not say.
struct DecodedFamily {
  absl::string_view name;
  absl::Status (*read)(const JsonReader&, const DecodedFamily&, DecoderConfig*);
  float norm_epsilon;
  float rope_theta;
  // Used by grouped attention only.
  QueryKeyNorm norm = QueryKeyNorm::kNone;
  float rotated = 1.0f;
};

float InverseRoot(uint32_t width) { return 1.0f / std::sqrt(static_cast<float>(width)); }

absl::Status ReadHeads(const JsonReader& config, uint32_t d_model,
                       GroupedAttentionOptions* attention) {
  ASSIGN_OR_RETURN(attention->heads, config.Positive({"num_attention_heads"}, kMaxHeads));
  ASSIGN_OR_RETURN(attention->kv_heads,
                   config.PositiveOr({"num_key_value_heads"}, attention->heads, kMaxHeads));
  ASSIGN_OR_RETURN(
      attention->head_dim,
      config.PositiveOr({"head_dim"}, std::max(1u, d_model / attention->heads), kMaxHeadDim));
  if (attention->heads % attention->kv_heads != 0) {
    return config.Error(
        absl::StrCat("num_attention_heads = ", attention->heads,
                     " must be a multiple of num_key_value_heads = ", attention->kv_heads));
  }
  attention->scale = InverseRoot(attention->head_dim);
  return absl::OkStatus();
}

// Mixtral's window holds when it is there, Qwen's when it is switched on.
absl::Status ReadWindow(const JsonReader& config, absl::string_view family,
                        GroupedAttentionOptions* attention) {
  if (family == "mixtral") {
    ASSIGN_OR_RETURN(attention->window, config.WholeOr({"sliding_window"}, 0));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const bool use_window, config.BoolOr({"use_sliding_window"}, false));
  if (!use_window) {
    return absl::OkStatus();
  }
  if (family == "qwen2_moe") {
    return absl::UnimplementedError(absl::StrCat(
        config.Source(), ": use_sliding_window = true cannot be decoded here for qwen2_moe"));
  }
  if (family == "qwen3_moe" && !config.IsNull("sliding_window")) {
    ASSIGN_OR_RETURN(attention->window, config.WholeOr({"sliding_window"}, 4096));
  }
  return absl::OkStatus();
}

absl::Status ReadGrouped(const JsonReader& config, const DecodedFamily& family,
                         DecoderConfig* decoder) {
  GroupedAttentionOptions attention;
  RETURN_IF_ERROR(ReadHeads(config, decoder->d_model, &attention));
  RETURN_IF_ERROR(ReadWindow(config, family.name, &attention));
  attention.norm = family.norm;
  if (family.name == "qwen2_moe") {
    ASSIGN_OR_RETURN(attention.qkv_bias, config.BoolOr({"qkv_bias"}, true));
  } else if (family.name != "mixtral") {
    ASSIGN_OR_RETURN(attention.qkv_bias, config.BoolOr({"attention_bias"}, false));
    attention.o_bias = attention.qkv_bias && family.name != "glm4_moe";
  }
  if (family.name == "glm4_moe") {
    ASSIGN_OR_RETURN(const bool norm, config.BoolOr({"use_qk_norm"}, false));
    attention.norm = norm ? family.norm : QueryKeyNorm::kNone;
  }
  if (family.name == "olmoe") {
    ASSIGN_OR_RETURN(attention.clip, config.FloatOr({"clip_qkv"}, 0.0f));
  }
  ASSIGN_OR_RETURN(decoder->rope,
                   ReadRope(config, attention.head_dim, {family.rope_theta, family.rotated}));
  decoder->attention = attention;
  return absl::OkStatus();
}

absl::Status ReadLatent(const JsonReader& config, const DecodedFamily& family,
                        DecoderConfig* decoder) {
  LatentAttentionOptions attention;
  ASSIGN_OR_RETURN(attention.heads, config.Positive({"num_attention_heads"}, kMaxHeads));
  ASSIGN_OR_RETURN(attention.kv_rank, config.PositiveOr({"kv_lora_rank"}, 512, kMaxHeadDim));
  ASSIGN_OR_RETURN(attention.nope, config.PositiveOr({"qk_nope_head_dim"}, 128, kMaxHeadDim));
  ASSIGN_OR_RETURN(attention.rope, config.PositiveOr({"qk_rope_head_dim"}, 64, kMaxHeadDim));
  ASSIGN_OR_RETURN(attention.value, config.PositiveOr({"v_head_dim"}, 128, kMaxHeadDim));
  ASSIGN_OR_RETURN(attention.bias, config.BoolOr({"attention_bias"}, false));
  if (!config.IsNull("q_lora_rank")) {
    ASSIGN_OR_RETURN(attention.q_rank, config.PositiveOr({"q_lora_rank"}, 1536, kMaxHeadDim));
  }
  ASSIGN_OR_RETURN(decoder->rope, ReadRope(config, attention.rope, {family.rope_theta, 1.0f}));
  ASSIGN_OR_RETURN(decoder->rope.interleaved, config.BoolOr({"rope_interleave"}, true));
  // mscale squared also for DeepSeek-V2, as in its own code: transformers 4 leaves it out there.
  attention.scale = InverseRoot(attention.nope + attention.rope) * decoder->rope.scale;
  decoder->attention = attention;
  return absl::OkStatus();
}

constexpr DecodedFamily kFamilies[] = {
    {"mixtral", &ReadGrouped, 1e-5f, 1e6f},
    {"qwen2_moe", &ReadGrouped, 1e-6f, 1e4f},
    {"qwen3_moe", &ReadGrouped, 1e-6f, 1e4f, QueryKeyNorm::kPerHead},
    {"olmoe", &ReadGrouped, 1e-5f, 1e4f, QueryKeyNorm::kWhole},
    {"glm4_moe", &ReadGrouped, 1e-5f, 1e4f, QueryKeyNorm::kPerHead, 0.5f},
    {"deepseek_v2", &ReadLatent, 1e-6f, 1e4f},
    {"deepseek_v3", &ReadLatent, 1e-6f, 1e4f},
};

absl::StatusOr<const DecodedFamily*> FindDecodedFamily(const JsonReader& config,
                                                       absl::string_view name) {
  const auto* const found =
      std::find_if(std::begin(kFamilies), std::end(kFamilies),
                   [&](const DecodedFamily& family) { return family.name == name; });
  if (found != std::end(kFamilies)) {
    return found;
  }
  const std::string known = absl::StrJoin(
      kFamilies, ", ",
      [](std::string* out, const DecodedFamily& family) { absl::StrAppend(out, family.name); });
  return absl::UnimplementedError(absl::StrCat(
      config.Source(), ": models of family ", name, " cannot be decoded here; known are ", known,
      ". Decode with transformers and expertmesh.hf.attach instead"));
}

// Those of generation_config.json where it has any, as transformers does; else the model's own.
absl::StatusOr<std::vector<uint32_t>> ReadEndTokens(const std::string& directory,
                                                    const JsonReader& config, uint32_t vocab_size) {
  std::vector<uint32_t> tokens;
  const std::string path = absl::StrCat(directory, "/generation_config.json");
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    ASSIGN_OR_RETURN(const JsonReader generation, JsonReader::FromFile(path));
    ASSIGN_OR_RETURN(tokens, generation.OneOrMore("eos_token_id"));
  }
  if (tokens.empty()) {
    ASSIGN_OR_RETURN(tokens, config.OneOrMore("eos_token_id"));
  }
  std::sort(tokens.begin(), tokens.end());
  if (!tokens.empty() && tokens.back() >= vocab_size) {
    return config.Error(absl::StrCat("eos_token_id (of this file or of generation_config.json) = ",
                                     tokens.back(), " must be below vocab_size = ", vocab_size));
  }
  return tokens;
}

}  // namespace

absl::StatusOr<DecoderConfig> ReadDecoderConfig(const std::string& directory,
                                                const checkpoint::ModelLayout& layout) {
  ASSIGN_OR_RETURN(const JsonReader outer,
                   JsonReader::FromFile(absl::StrCat(directory, "/config.json")));
  ASSIGN_OR_RETURN(const JsonReader config, checkpoint::LanguageConfig(outer));
  DecoderConfig decoder;
  decoder.family = layout.model.family;
  ASSIGN_OR_RETURN(const DecodedFamily* family, FindDecodedFamily(config, decoder.family));
  decoder.d_model = layout.model.d_model;
  decoder.num_layers = layout.model.num_layers;
  decoder.vocab_size = layout.vocab_size;
  RETURN_IF_ERROR(config.Positive({"max_position_embeddings"}).status());
  ASSIGN_OR_RETURN(decoder.norm_epsilon, config.FloatOr({"rms_norm_eps"}, family->norm_epsilon));
  if (layout.model.layers.size() < decoder.num_layers) {
    ASSIGN_OR_RETURN(decoder.dense_width, config.Positive({"intermediate_size"}));
  }
  RETURN_IF_ERROR(family->read(config, *family, &decoder));
  decoder.context_length = decoder.rope.context;
  ASSIGN_OR_RETURN(decoder.end_tokens, ReadEndTokens(directory, config, decoder.vocab_size));
  return decoder;
}

}  // namespace expertmesh::decoder
