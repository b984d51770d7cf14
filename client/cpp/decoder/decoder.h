// A decoder without its experts: tokens in, logits out. What lies between the MoE layers
// (embeddings, attention, norms, dense layers, the head) is computed here, the MoE layers by
// an implementation of MoeLayers.
//
//   tokens ─ embedding ─┬─ norm ─ attention ─ + ─┬─ norm ─ MoeLayers ─ + ─ ... ─ norm ─ head
//                       └─────────────────────┘  │    (or a dense layer) │
//                                                └───────────────────────┘
//
// Numbers: activations, norms, scores and caches are float32; projections multiply in the compute
// type, accumulated in float32. A sequence's logits have the same bits alone and beside others, as
// far as its MoeLayers keep that promise.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_DECODER_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cpp/decoder/attention.h"
#include "client/cpp/decoder/decoder_config.h"
#include "client/cpp/decoder/kv_cache.h"
#include "client/cpp/decoder/model_tensors.h"
#include "client/cpp/decoder/moe_layers.h"
#include "common/base/clock.h"
#include "common/experts/backend.h"
#include "common/experts/linear.h"

namespace expertmesh::decoder {

// Learns of every MoE call. Same thread as Forward.
class DecoderObserver {
 public:
  virtual ~DecoderObserver() = default;
  virtual void OnMoe(uint32_t layer, size_t tokens, absl::Duration took,
                     const MoeResult& result) = 0;
  // Called once for each Forward, with the times of all its layers together.
  virtual void OnForward(absl::Duration attention, absl::Duration total) = 0;
};

struct DecoderOptions {
  // What projections and dense layers multiply in: kF32 or kBF16.
  Dtype compute_dtype = Dtype::kF32;
  // 0: one per available core.
  int threads = 0;
};

// New tokens of one sequence.
struct DecoderInput {
  KvCache* cache = nullptr;
  absl::Span<const uint32_t> tokens;
  // Wanted: the last hidden state of every token; otherwise of the last one only.
  bool all_rows = false;
  // Tokens of the sequence that are known, those of later calls as well: a prompt that is read in
  // parts is turned as a whole where RoPE depends on that. 0: those of this call and before.
  uint64_t known_tokens = 0;
};

// Weights are immutable; Forward is for one thread at a time.
class Decoder {
 public:
  // Reads everything but the experts from the checkpoint in `directory`.
  //   NOT_FOUND, INVALID_ARGUMENT, DATA_LOSS  as of MoeCheckpoint::Open.
  //   UNIMPLEMENTED                           as of ReadDecoderConfig.
  static absl::StatusOr<std::unique_ptr<Decoder>> Open(const std::string& directory,
                                                       const DecoderOptions& options);

  const DecoderConfig& config() const { return config_; }
  // As ModelTensors::warnings.
  const std::vector<std::string>& warnings() const;
  KvCache NewCache() const { return KvCache(config_.num_layers); }

  // The normalised last hidden states [rows, d_model] of the rows that are wanted, input after
  // input. Each cache then holds its input's tokens; after an error no cache may be used again.
  //   INVALID_ARGUMENT  a token outside the vocabulary, or an input without tokens.
  //   OUT_OF_RANGE      a sequence grows past the context (the message says by how much).
  //   anything          that `moe` answers.
  // `observer` may be null.
  absl::StatusOr<std::vector<float>> Forward(absl::Span<const DecoderInput> inputs, MoeLayers* moe,
                                             DecoderObserver* observer);

  // Logits [rows, vocab_size] of what Forward has returned, or of some of its rows.
  std::vector<float> Logits(absl::Span<const float> rows);

 private:
  struct Layer {
    std::vector<float> attention_norm;
    std::unique_ptr<const Attention> attention;
    std::vector<float> feed_forward_norm;
    // Null where the layer has experts.
    std::shared_ptr<const experts::PackedExpert> dense;
  };
  struct Batch;

  explicit Decoder(const DecoderOptions& options);
  absl::Status Load(const std::string& directory, Dtype compute_dtype);
  absl::StatusOr<Layer> LoadLayer(uint32_t index, Dtype compute_dtype);

  absl::StatusOr<Batch> Assemble(absl::Span<const DecoderInput> inputs) const;
  void Normalise(const std::vector<float>& weight, absl::Span<const float> x, float* out) const;
  absl::Status FeedForward(uint32_t layer, const Batch& batch, absl::Span<const float> x,
                           MoeLayers* moe, DecoderObserver* observer, std::vector<float>* y);
  absl::Status Dense(const experts::PackedExpert& dense, absl::Span<const float> x, float* y);

  Clock* const clock_;
  DecoderConfig config_;
  std::unique_ptr<ModelTensors> tensors_;
  MatrixView embeddings_;
  std::vector<Layer> layers_;
  std::vector<float> last_norm_;
  std::unique_ptr<const experts::Linear> head_;
  experts::LinearTeam team_;
  std::unique_ptr<experts::Backend> backend_;  // For dense layers.
  int threads_;
};

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_DECODER_H_
