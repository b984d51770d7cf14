#include <algorithm>
#include <utility>
#include <variant>

#include "client/cpp/decoder/attention.h"
#include "client/cpp/decoder/attention_kernels.h"
#include "common/base/status_macros.h"

namespace expertmesh::decoder {
namespace {

// Tokens whose queries look at a block of keys together.
constexpr size_t kPieceRows = 8;
// What preparing an element costs, in multiplications.
constexpr size_t kPrepareCost = 8;

class GroupedAttention final : public Attention {
 public:
  GroupedAttention(const GroupedAttentionOptions& options, size_t d_model, float norm_epsilon)
      : options_(options), d_model_(d_model), norm_epsilon_(norm_epsilon) {}

  absl::Status Load(const ModelTensors& tensors, uint32_t layer, Dtype compute_dtype);
  void Attend(size_t layer, const AttentionBatch& batch, const float* x, experts::LinearTeam* team,
              float* y) const override;

 private:
  size_t q_width() const { return size_t{options_.heads} * options_.head_dim; }
  size_t kv_width() const { return size_t{options_.kv_heads} * options_.head_dim; }
  // Queries, keys and values of a token, side by side.
  size_t width() const { return q_width() + 2 * kv_width(); }

  // Normalises, clamps and turns queries and keys of one token in place.
  void Prepare(const RopeAngles& angles, float* qkv) const;
  void Normalise(float* heads, size_t count, const std::vector<float>& weight) const;
  void AttendPiece(const AttentionPiece& piece, size_t kv_head, size_t layer, const float* qkv,
                   float* out) const;

  const GroupedAttentionOptions options_;
  const size_t d_model_;
  const float norm_epsilon_;
  std::vector<float> q_norm_;
  std::vector<float> k_norm_;
  std::unique_ptr<const experts::Linear> qkv_;
  std::unique_ptr<const experts::Linear> o_;
};

absl::Status GroupedAttention::Load(const ModelTensors& tensors, uint32_t layer,
                                    Dtype compute_dtype) {
  std::vector<experts::Linear::Part> parts(3);
  ASSIGN_OR_RETURN(parts[0], tensors.Projection(layer, "self_attn.q_proj", q_width(), d_model_,
                                                options_.qkv_bias));
  ASSIGN_OR_RETURN(parts[1], tensors.Projection(layer, "self_attn.k_proj", kv_width(), d_model_,
                                                options_.qkv_bias));
  ASSIGN_OR_RETURN(parts[2], tensors.Projection(layer, "self_attn.v_proj", kv_width(), d_model_,
                                                options_.qkv_bias));
  ASSIGN_OR_RETURN(qkv_, experts::Linear::Pack(compute_dtype, parts));
  ASSIGN_OR_RETURN(
      const experts::Linear::Part o,
      tensors.Projection(layer, "self_attn.o_proj", d_model_, q_width(), options_.o_bias));
  ASSIGN_OR_RETURN(o_, experts::Linear::Pack(compute_dtype, {o}));
  if (options_.norm == QueryKeyNorm::kNone) {
    return absl::OkStatus();
  }
  const bool whole = options_.norm == QueryKeyNorm::kWhole;
  ASSIGN_OR_RETURN(q_norm_, tensors.Norm(layer, "self_attn.q_norm",
                                         whole ? q_width() : size_t{options_.head_dim}));
  ASSIGN_OR_RETURN(k_norm_, tensors.Norm(layer, "self_attn.k_norm",
                                         whole ? kv_width() : size_t{options_.head_dim}));
  return absl::OkStatus();
}

void GroupedAttention::Normalise(float* heads, size_t count,
                                 const std::vector<float>& weight) const {
  const AttentionKernels& kernels = GetAttentionKernels();
  for (size_t begin = 0; begin < count; begin += weight.size()) {
    kernels.rms_norm(heads + begin, weight.data(), norm_epsilon_, weight.size(), heads + begin);
  }
}

void GroupedAttention::Prepare(const RopeAngles& angles, float* qkv) const {
  if (options_.norm != QueryKeyNorm::kNone) {
    Normalise(qkv, q_width(), q_norm_);
    Normalise(qkv + q_width(), kv_width(), k_norm_);
  }
  if (options_.clip > 0.0f) {
    for (size_t i = 0; i < width(); ++i) {
      qkv[i] = std::clamp(qkv[i], -options_.clip, options_.clip);
    }
  }
  for (size_t head = 0; head < size_t{options_.heads} + options_.kv_heads; ++head) {
    angles.Turn(qkv + head * options_.head_dim);
  }
}

void GroupedAttention::AttendPiece(const AttentionPiece& piece, size_t kv_head, size_t layer,
                                   const float* qkv, float* out) const {
  static thread_local AttentionScratch scratch;
  const AttentionSegment& segment = *piece.segment;
  const LayerCache& cache = segment.cache->layer(layer);
  AttendedRows rows;
  rows.keys = cache.keys.data() + kv_head * options_.head_dim;
  rows.values = cache.values.data() + kv_head * options_.head_dim;
  rows.key_stride = rows.value_stride = kv_width();
  rows.key_width = rows.value_width = options_.head_dim;
  const size_t group = options_.heads / options_.kv_heads;
  std::vector<AttendingQuery> queries;
  for (size_t i = piece.first; i < piece.first + piece.count; ++i) {
    const size_t end = segment.cache->tokens() + i + 1;
    const size_t begin = options_.window > 0 && end > options_.window ? end - options_.window : 0;
    for (size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const size_t offset = head * options_.head_dim;
      queries.push_back({qkv + (segment.row + i) * width() + offset, begin, end,
                         out + (segment.row + i) * q_width() + offset});
    }
  }
  GetAttentionKernels().attend(rows, queries.data(), queries.size(), options_.scale, &scratch);
}

void GroupedAttention::Attend(size_t layer, const AttentionBatch& batch, const float* x,
                              experts::LinearTeam* team, float* y) const {
  std::vector<float> qkv(batch.rows * width());
  team->Multiply(*qkv_, batch.rows, x, qkv.data());
  for (const AttentionSegment& segment : batch.segments) {
    segment.cache->Grow(layer, segment.count, kv_width(), kv_width());
  }
  const std::vector<AttentionPiece> pieces = CutIntoPieces(batch, kPieceRows);
  team->ForEach(pieces.size(), batch.rows * width() * kPrepareCost, [&](size_t task) {
    const AttentionPiece& piece = pieces[task];
    LayerCache& cache = piece.segment->cache->layer(layer);
    for (size_t i = piece.first; i < piece.first + piece.count; ++i) {
      float* const token = qkv.data() + (piece.segment->row + i) * width();
      Prepare(batch.angles[piece.segment->row + i], token);
      const size_t target = (piece.segment->cache->tokens() + i) * kv_width();
      const float* const keys = token + q_width();
      std::copy(keys, keys + kv_width(), cache.keys.data() + target);
      std::copy(keys + kv_width(), keys + 2 * kv_width(), cache.values.data() + target);
    }
  });
  std::vector<float> out(batch.rows * q_width());
  team->ForEach(pieces.size() * options_.kv_heads, 2 * AttendedPairs(batch) * q_width(),
                [&](size_t task) {
                  AttendPiece(pieces[task / options_.kv_heads], task % options_.kv_heads, layer,
                              qkv.data(), out.data());
                });
  team->Multiply(*o_, batch.rows, out.data(), y);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Attention>> MakeGroupedAttention(const DecoderConfig& config,
                                                                      const ModelTensors& tensors,
                                                                      uint32_t layer,
                                                                      Dtype compute_dtype) {
  auto attention = std::make_unique<GroupedAttention>(
      std::get<GroupedAttentionOptions>(config.attention), config.d_model, config.norm_epsilon);
  RETURN_IF_ERROR(attention->Load(tensors, layer, compute_dtype));
  return attention;
}

}  // namespace expertmesh::decoder
