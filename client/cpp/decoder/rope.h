// Rotary position embedding (Su et al., 2021), with the ways of stretching it that checkpoints use.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_ROPE_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_ROPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/json/json_reader.h"

namespace expertmesh::decoder {

// NTK scaling of a sequence that is longer than `context` (rope_type dynamic): the base grows with
// its length.
struct DynamicRope {
  float theta = 0.0f;
  float factor = 1.0f;
  uint32_t context = 0;
};

struct Rope {
  // [dimensions / 2]: pair i of a token at position p turns by p * inverse_frequencies[i].
  std::vector<float> inverse_frequencies;
  // Sine and cosine are multiplied by it (YaRN).
  float magnitude = 1.0f;
  // The scale of attention is multiplied by it (YaRN in DeepSeek's models: mscale squared).
  float scale = 1.0f;
  // Pairs are neighbours (0, 1), (2, 3) ...; otherwise halves (0, n / 2), (1, n / 2 + 1) ...
  bool interleaved = false;
  // Tokens of the longest sequence that it is meant for: max_position_embeddings, or what linear,
  // dynamic and yarn stretch a shorter one to.
  uint32_t context = 0;
  // Nothing: the frequencies are those of any length.
  std::optional<DynamicRope> dynamic = {};

  // What turns tokens that are read when a sequence has come to `length`; nothing: this does. Those
  // read before stay as they were turned, as in transformers.
  std::optional<Rope> StretchedTo(uint64_t length) const;

  size_t dimensions() const { return 2 * inverse_frequencies.size(); }
};

// What holds when config.json does not say: the base, and the share of a head that is turned.
struct RopeDefaults {
  float theta = 10000.0f;
  float rotated = 1.0f;
};

// Reads rope_theta and rope_scaling, or rope_parameters, and partial_rotary_factor for heads of
// `head_dim`. Known kinds are default, linear, dynamic, yarn and llama3.
//   UNIMPLEMENTED     another kind.
//   INVALID_ARGUMENT  a missing, contradictory or wrongly typed value.
absl::StatusOr<Rope> ReadRope(const JsonReader& config, uint32_t head_dim,
                              const RopeDefaults& defaults = {});

// Sines and cosines of one position.
class RopeAngles {
 public:
  RopeAngles(const Rope& rope, uint32_t position);

  // Turns the first rope.dimensions() elements of `head` in place. Pairs of an interleaved Rope
  // stay where they are: products of two vectors turned here are those of the model.
  void Turn(float* head) const;

 private:
  const bool interleaved_;
  std::vector<float> cosines_;
  std::vector<float> sines_;
};

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_ROPE_H_
