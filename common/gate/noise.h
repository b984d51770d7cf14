// Random numbers of routing. Every number is a function of the request's seed, the token's index in
// its request and the expert: a request is routed the same whatever else is in its batch, and on
// every router.
#ifndef EXPERTMESH_COMMON_GATE_NOISE_H_
#define EXPERTMESH_COMMON_GATE_NOISE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "common/model/routing_options.h"

namespace expertmesh::gate {

// Numbers of different uses have nothing to do with each other.
enum class RandomUse : uint32_t { kNoise, kNoiseAngle, kJitter, kSecondExpert };

// One token of one request.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t token = 0;
};

// Thread-safe. Tests bring their own numbers.
class RandomSource {
 public:
  virtual ~RandomSource() = default;
  // Uniform in [0, 1). `index`: expert, slot or element of the hidden state. The same arguments
  // give the same number.
  virtual float Uniform(RandomUse use, const RandomKey& key, uint32_t index) const = 0;
};

// Multiples of 2^-24, from a counter mixed with the seed.
const RandomSource& CounterRandom();

// Standard Gumbel: -ln(-ln u).
float Gumbel(const RandomSource& random, RandomUse use, const RandomKey& key, uint32_t index);

// Standard normal, by Box and Muller from the numbers of kNoise and kNoiseAngle.
float Normal(const RandomSource& random, const RandomKey& key, uint32_t index);

// Adds the noise of `options` to one token's logits. `width`: what the noise weight makes of the
// token, of the size of `logits`, for kLearnedNormal. kNone and kJitter add nothing.
void AddNoise(const RoutingOptions& options, const RandomSource& random, const RandomKey& key,
              absl::Span<const float> width, absl::Span<float> logits);

// Noise::kJitter: multiplies one token's hidden state.
void JitterRow(const RoutingOptions& options, const RandomSource& random, const RandomKey& key,
               absl::Span<float> hidden_state);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_NOISE_H_
