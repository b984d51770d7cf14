// Sizes of synthetic models that several families share. Used by the family_*.cc files only.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_CONFIG_H_
#define EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_CONFIG_H_

#include <cstdint>
#include <vector>

#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_options.h"
#include "nlohmann/json.hpp"

namespace expertmesh::checkpoint {

// Attention with small heads that fit any d_model, four to a key-value head where that is possible.
GroupedAttention SyntheticAttention(const SyntheticOptions& options);

// What the config.json of most decoders has in common: sizes, attention (with head_dim), norms.
nlohmann::ordered_json SyntheticDecoder(const SyntheticOptions& options);

uint32_t SyntheticTopK(const SyntheticOptions& options);
uint32_t SyntheticSharedExperts(const SyntheticOptions& options);
// Width of layers without experts.
uint32_t SyntheticDenseWidth(const SyntheticOptions& options);
// The first dense_layers layers.
std::vector<uint32_t> SyntheticDenseLayers(const SyntheticOptions& options);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_CONFIG_H_
