// Multi-head latent attention in its absorbed form (DeepSeek-V2, section 2.1.2): the up-projections
// of keys and values are applied to queries and results, so that all heads look at the one latent
// vector a token has left, and nothing else is remembered of it.
#include <algorithm>
#include <utility>
#include <variant>

#include "client/cpp/decoder/attention.h"
#include "client/cpp/decoder/attention_kernels.h"
#include "common/base/status_macros.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh::decoder {
namespace {

// Epsilon of the norms of compressed queries and latents, which ignore the one of config.json.
constexpr float kLatentEpsilon = 1e-6f;
// Tokens and heads that look at a block of latent vectors together.
constexpr size_t kPieceRows = 4;
constexpr size_t kPieceHeads = 16;

class LatentAttention final : public Attention {
 public:
  LatentAttention(const LatentAttentionOptions& options, size_t d_model)
      : options_(options), d_model_(d_model) {}

  absl::Status Load(const ModelTensors& tensors, uint32_t layer, Dtype compute_dtype);
  void Attend(size_t layer, const AttentionBatch& batch, const float* x, experts::LinearTeam* team,
              float* y) const override;

 private:
  size_t head_width() const { return size_t{options_.nope} + options_.rope; }
  size_t q_width() const { return options_.heads * head_width(); }
  // What is remembered of a token: its latent vector and its rotated key.
  size_t kept_width() const { return size_t{options_.kv_rank} + options_.rope; }
  size_t out_width() const { return size_t{options_.heads} * options_.value; }

  // Queries [rows, q_width] not turned yet, and appends to the caches.
  std::vector<float> Project(size_t layer, const AttentionBatch& batch, const float* x,
                             experts::LinearTeam* team) const;
  // Queries of one head that look at latent vectors: [rows, heads, kept_width], zeros before.
  void Absorb(const AttentionBatch& batch, size_t head, float* queries, float* absorbed) const;
  // Results of up to kPieceHeads heads, [rows, out_width].
  void AttendPiece(const AttentionPiece& piece, size_t first_head, size_t layer,
                   const float* absorbed, float* out) const;

  const LatentAttentionOptions options_;
  const size_t d_model_;
  std::vector<float> q_norm_;   // [q_rank] or empty.
  std::vector<float> kv_norm_;  // [kv_rank]
  // Queries (compressed, if they are), latents and rotated keys.
  std::unique_ptr<const experts::Linear> down_;
  // Makes queries of compressed ones; null when queries are not compressed.
  std::unique_ptr<const experts::Linear> q_up_;
  // [heads, nope + value, kv_rank]: what makes keys and values of a latent vector.
  std::vector<float> kv_up_;
  std::unique_ptr<const experts::Linear> o_;
};

absl::Status LatentAttention::Load(const ModelTensors& tensors, uint32_t layer,
                                   Dtype compute_dtype) {
  std::vector<experts::Linear::Part> parts(2);
  const uint32_t rank = options_.q_rank;
  if (rank == 0) {
    ASSIGN_OR_RETURN(parts[0], tensors.Projection(layer, "self_attn.q_proj", q_width(), d_model_));
  } else {
    ASSIGN_OR_RETURN(
        parts[0], tensors.Projection(layer, "self_attn.q_a_proj", rank, d_model_, options_.bias));
    ASSIGN_OR_RETURN(q_norm_, tensors.Norm(layer, "self_attn.q_a_layernorm", rank));
    ASSIGN_OR_RETURN(const experts::Linear::Part up,
                     tensors.Projection(layer, "self_attn.q_b_proj", q_width(), rank));
    ASSIGN_OR_RETURN(q_up_, experts::Linear::Pack(compute_dtype, {up}));
  }
  ASSIGN_OR_RETURN(parts[1], tensors.Projection(layer, "self_attn.kv_a_proj_with_mqa", kept_width(),
                                                d_model_, options_.bias));
  ASSIGN_OR_RETURN(down_, experts::Linear::Pack(compute_dtype, parts));
  ASSIGN_OR_RETURN(kv_norm_, tensors.Norm(layer, "self_attn.kv_a_layernorm", options_.kv_rank));
  ASSIGN_OR_RETURN(const experts::Linear::Part kv_up,
                   tensors.Projection(layer, "self_attn.kv_b_proj",
                                      size_t{options_.heads} * (options_.nope + options_.value),
                                      options_.kv_rank));
  kv_up_ = DecodeMatrix(kv_up.weight);
  ASSIGN_OR_RETURN(
      const experts::Linear::Part o,
      tensors.Projection(layer, "self_attn.o_proj", d_model_, out_width(), options_.bias));
  ASSIGN_OR_RETURN(o_, experts::Linear::Pack(compute_dtype, {o}));
  return absl::OkStatus();
}

std::vector<float> LatentAttention::Project(size_t layer, const AttentionBatch& batch,
                                            const float* x, experts::LinearTeam* team) const {
  const AttentionKernels& kernels = GetAttentionKernels();
  const size_t first = options_.q_rank == 0 ? q_width() : options_.q_rank;
  const size_t width = first + kept_width();
  std::vector<float> down(batch.rows * width);
  team->Multiply(*down_, batch.rows, x, down.data());
  std::vector<float> compressed(batch.rows * first);
  for (const AttentionSegment& segment : batch.segments) {
    float* kept = segment.cache->Grow(layer, segment.count, kept_width(), 0).keys.data() +
                  segment.cache->tokens() * kept_width();
    for (size_t row = segment.row; row < segment.row + segment.count; ++row) {
      const float* const from = down.data() + row * width;
      float* const to = compressed.data() + row * first;
      if (options_.q_rank > 0) {
        kernels.rms_norm(from, q_norm_.data(), kLatentEpsilon, first, to);
      } else {
        std::copy(from, from + first, to);
      }
      kernels.rms_norm(from + first, kv_norm_.data(), kLatentEpsilon, options_.kv_rank, kept);
      std::copy(from + first + options_.kv_rank, from + width, kept + options_.kv_rank);
      batch.angles[row].Turn(kept + options_.kv_rank);
      kept += kept_width();
    }
  }
  if (options_.q_rank == 0) {
    return compressed;
  }
  std::vector<float> queries(batch.rows * q_width());
  team->Multiply(*q_up_, batch.rows, compressed.data(), queries.data());
  return queries;
}

void LatentAttention::Absorb(const AttentionBatch& batch, size_t head, float* queries,
                             float* absorbed) const {
  const AttentionKernels& kernels = GetAttentionKernels();
  const size_t rank = options_.kv_rank;
  const float* const key_up = kv_up_.data() + head * (options_.nope + options_.value) * rank;
  for (size_t row = 0; row < batch.rows; ++row) {
    float* const own = queries + row * q_width() + head * head_width();
    float* const query = absorbed + (row * options_.heads + head) * kept_width();
    for (size_t n = 0; n < options_.nope; ++n) {
      kernels.add_scaled(own[n], key_up + n * rank, rank, query);
    }
    std::copy(own + options_.nope, own + head_width(), query + rank);
    batch.angles[row].Turn(query + rank);
  }
}

void LatentAttention::AttendPiece(const AttentionPiece& piece, size_t first_head, size_t layer,
                                  const float* absorbed, float* out) const {
  static thread_local AttentionScratch scratch;
  const AttentionKernels& kernels = GetAttentionKernels();
  const AttentionSegment& segment = *piece.segment;
  const size_t rank = options_.kv_rank;
  const size_t heads = std::min(kPieceHeads, options_.heads - first_head);
  AttendedRows rows;
  rows.keys = rows.values = segment.cache->layer(layer).keys.data();
  rows.key_stride = rows.value_stride = rows.key_width = kept_width();
  rows.value_width = rank;
  std::vector<float> mixed(piece.count * heads * rank);
  std::vector<AttendingQuery> queries;
  for (size_t i = piece.first; i < piece.first + piece.count; ++i) {
    for (size_t head = first_head; head < first_head + heads; ++head) {
      const size_t query = (segment.row + i) * options_.heads + head;
      queries.push_back({absorbed + query * kept_width(), 0, segment.cache->tokens() + i + 1,
                         mixed.data() + queries.size() * rank});
    }
  }
  kernels.attend(rows, queries.data(), queries.size(), options_.scale, &scratch);
  for (size_t q = 0; q < queries.size(); ++q) {
    const size_t row = segment.row + piece.first + q / heads;
    const size_t head = first_head + q % heads;
    const float* const value_up =
        kv_up_.data() + (head * (options_.nope + options_.value) + options_.nope) * rank;
    float* const result = out + row * out_width() + head * options_.value;
    for (size_t v = 0; v < options_.value; ++v) {
      result[v] = kernels.dot(value_up + v * rank, queries[q].out, rank);
    }
  }
}

void LatentAttention::Attend(size_t layer, const AttentionBatch& batch, const float* x,
                             experts::LinearTeam* team, float* y) const {
  std::vector<float> queries = Project(layer, batch, x, team);
  const size_t ups = batch.rows * options_.heads * options_.kv_rank;
  std::vector<float> absorbed(batch.rows * options_.heads * kept_width());
  team->ForEach(options_.heads, ups * options_.nope,
                [&](size_t head) { Absorb(batch, head, queries.data(), absorbed.data()); });
  std::vector<float> out(batch.rows * out_width());
  const std::vector<AttentionPiece> pieces = CutIntoPieces(batch, kPieceRows);
  const size_t runs = (options_.heads + kPieceHeads - 1) / kPieceHeads;
  team->ForEach(pieces.size() * runs,
                2 * AttendedPairs(batch) * options_.heads * kept_width() + ups * options_.value,
                [&](size_t task) {
                  AttendPiece(pieces[task / runs], task % runs * kPieceHeads, layer,
                              absorbed.data(), out.data());
                });
  team->Multiply(*o_, batch.rows, out.data(), y);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Attention>> MakeLatentAttention(const DecoderConfig& config,
                                                                     const ModelTensors& tensors,
                                                                     uint32_t layer,
                                                                     Dtype compute_dtype) {
  auto attention = std::make_unique<LatentAttention>(
      std::get<LatentAttentionOptions>(config.attention), config.d_model);
  RETURN_IF_ERROR(attention->Load(tensors, layer, compute_dtype));
  return attention;
}

}  // namespace expertmesh::decoder
