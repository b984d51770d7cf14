// Attention of one layer: reads the hidden states of some tokens, remembers what later tokens will
// need of them, and returns what each token makes of those before it.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_ATTENTION_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cpp/decoder/decoder_config.h"
#include "client/cpp/decoder/kv_cache.h"
#include "client/cpp/decoder/model_tensors.h"
#include "common/experts/linear.h"

namespace expertmesh::decoder {

// Consecutive tokens of one sequence in a batch: rows [row, row + count), positions from
// cache->tokens() on.
struct AttentionSegment {
  KvCache* cache = nullptr;
  size_t row = 0;
  size_t count = 0;
};

struct AttentionBatch {
  absl::Span<const AttentionSegment> segments;
  size_t rows = 0;
  // One for each row.
  absl::Span<const RopeAngles> angles;
};

// Weights of one layer. Immutable; what changes is in the caches and in `team`.
class Attention {
 public:
  virtual ~Attention() = default;
  // y [rows, d_model] from x [rows, d_model]; a row's bits do not depend on other sequences.
  virtual void Attend(size_t layer, const AttentionBatch& batch, const float* x,
                      experts::LinearTeam* team, float* y) const = 0;
};

// Rows [first, first + count) of a segment: what is worked on as one task.
struct AttentionPiece {
  const AttentionSegment* segment = nullptr;
  size_t first = 0;
  size_t count = 0;
};
// All rows of all segments, in pieces of at most `most`.
std::vector<AttentionPiece> CutIntoPieces(const AttentionBatch& batch, size_t most);

// Rows that all queries of a batch look at, one by one.
size_t AttendedPairs(const AttentionBatch& batch);

// `compute_dtype` is what the projections multiply in.
absl::StatusOr<std::unique_ptr<const Attention>> MakeGroupedAttention(const DecoderConfig& config,
                                                                      const ModelTensors& tensors,
                                                                      uint32_t layer,
                                                                      Dtype compute_dtype);
absl::StatusOr<std::unique_ptr<const Attention>> MakeLatentAttention(const DecoderConfig& config,
                                                                     const ModelTensors& tensors,
                                                                     uint32_t layer,
                                                                     Dtype compute_dtype);

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_ATTENTION_H_
