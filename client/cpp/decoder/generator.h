// Writes on from prompts, several sequences at once: what is left of the prompts and the newest
// token of each sequence go through the decoder together.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_GENERATOR_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_GENERATOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/cpp/decoder/decoder.h"
#include "client/cpp/decoder/kv_cache.h"
#include "client/cpp/decoder/moe_layers.h"
#include "client/cpp/decoder/sampler.h"

namespace expertmesh::decoder {

// Why a sequence goes no further.
enum class Ended { kNot, kEndToken, kMaxTokens };

// A text in the making. Not thread-safe.
class Sequence {
 public:
  Sequence(const Decoder& decoder, const SamplingOptions& sampling)
      : cache_(decoder.NewCache()), sampler_(sampling) {}

  // Adds tokens that are given, and lets it grow by `max_tokens` more. Changes nothing on error:
  //   INVALID_ARGUMENT  no tokens, or one outside the vocabulary.
  //   OUT_OF_RANGE      all of it would not fit the context; the message says what would.
  absl::Status Prompt(const Decoder& decoder, absl::Span<const uint32_t> tokens,
                      uint64_t max_tokens);

  Ended ended() const { return ended_; }

 private:
  friend class Generator;

  KvCache cache_;
  Sampler sampler_;
  // Not through the decoder yet.
  std::vector<uint32_t> pending_;
  uint64_t grown_ = 0;
  uint64_t max_tokens_ = 0;
  Ended ended_ = Ended::kNot;
};

struct GeneratorOptions {
  // Most rows that go through the decoder together.
  size_t max_batch_tokens = 512;
  // Go on past the model's end tokens.
  bool ignore_end = false;
};

// Takes a token of a sequence. An error ends the generation with it.
using TokenSink = std::function<absl::Status(size_t sequence, uint32_t token)>;

class Generator {
 public:
  // `decoder`, `moe` and `observer` (may be null) must outlive it.
  Generator(Decoder* decoder, MoeLayers* moe, DecoderObserver* observer,
            const GeneratorOptions& options)
      : decoder_(decoder), moe_(moe), observer_(observer), options_(options) {}

  // Grows all sequences until each has ended, and hands every token to `on_token` as it comes, with
  // the index of its sequence; end tokens are not handed over. At the first error nothing more
  // comes, and the sequences cannot be used any more.
  absl::Status Run(absl::Span<Sequence* const> sequences, const TokenSink& on_token);

 private:
  absl::Status Step(absl::Span<Sequence* const> sequences, const TokenSink& on_token);
  bool EndsText(uint32_t token) const;

  Decoder* const decoder_;
  MoeLayers* const moe_;
  DecoderObserver* const observer_;
  const GeneratorOptions options_;
};

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_GENERATOR_H_
