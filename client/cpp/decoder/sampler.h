// Picks the next token from logits.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_SAMPLER_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_SAMPLER_H_

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace expertmesh::decoder {

struct SamplingOptions {
  // 0: always the likeliest token (the lower one of equals). Otherwise logits are divided by it.
  double temperature = 0.0;
  // Only the so many likeliest tokens; 0: all.
  uint32_t top_k = 0;
  // Only the fewest likeliest tokens whose probabilities, after top_k, reach it; 1: all.
  double top_p = 1.0;
  uint64_t seed = 0;
};

// INVALID_ARGUMENT names the option and its value.
absl::Status CheckSampling(const SamplingOptions& options);

// INTERNAL when `logits` are no finite numbers: nothing can be said then.
absl::Status CheckLogits(absl::Span<const float> logits);

// Samples the tokens of one sequence. Same options and same logits: same tokens. Not thread-safe.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  // `logits` [vocab_size] of the last token; not empty.
  // Errors of CheckLogits.
  absl::StatusOr<uint32_t> Next(absl::Span<const float> logits);

 private:
  struct Candidate {
    double probability;
    uint32_t token;
  };
  // Fills `candidates_` with what may be drawn, unordered.
  void Collect(absl::Span<const float> logits, float highest);
  // Keeps what top_k and top_p leave, likeliest first.
  void Narrow();

  const SamplingOptions options_;
  std::vector<Candidate> candidates_;
  // Probability of what Collect has dropped.
  double left_out_ = 0.0;
  std::mt19937_64 random_;
};

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_SAMPLER_H_
