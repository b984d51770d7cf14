// Sizes of a synthetic checkpoint.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_OPTIONS_H_
#define EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "common/tensor/dtype.h"

namespace expertmesh::checkpoint {

// How the linears are stored. kFp8: F8_E4M3 with a float32 scale for every block of 128 x 128.
// kMxfp4: the experts as e2m1 with an e8m0 scale for every 32 inputs. Either way the values are
// exact in BF16.
enum class Quantisation { kNone, kFp8, kMxfp4 };

struct SyntheticOptions {
  // Name in the table of families.
  std::string family = "qwen3_moe";
  // Same seed, same bytes: a tensor depends on the seed, its name, its shape and its type only.
  uint64_t seed = 1;
  // kF32, kF16 or kBF16.
  Dtype dtype = Dtype::kBF16;
  Quantisation quantise = Quantisation::kNone;
  uint32_t d_model = 256;
  // In all. Encoder-decoders have half of them in each stack, and at least two.
  uint32_t num_layers = 2;
  uint32_t num_experts = 8;
  // Families with a fixed number take that one when it is absent, and nothing else; others 2.
  std::optional<uint32_t> top_k;
  // Width of one expert.
  uint32_t intermediate_size = 128;
  uint32_t vocab_size = 1024;

  // Not every family has a place for what follows.

  // Leading layers without experts.
  uint32_t dense_layers = 0;
  // Every how many layers there are experts.
  uint32_t moe_every = 1;
  // Width of layers without experts; 0: four times that of an expert.
  uint32_t dense_intermediate_size = 0;
  // Experts that every token passes through, each as wide as the others; absent: one where the
  // family has such experts.
  std::optional<uint32_t> shared_experts;
  // The group limit of the gate.
  uint32_t n_group = 1;
  uint32_t topk_group = 1;

  // A file is closed before it grows beyond this; one file (and no index) when all fits. A single
  // tensor may exceed it.
  uint64_t max_shard_bytes = uint64_t{5'000'000'000};
  // Called now and then, with bytes of tensors; the last call has done == total. May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// What a family may have a place for. kDenseWidth: dense_intermediate_size. kGroups: n_group and
// topk_group. kTopK: top_k, when it is not fixed.
enum class SyntheticOption {
  kTopK,
  kDenseLayers,
  kMoeEvery,
  kDenseWidth,
  kSharedExperts,
  kGroups,
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_OPTIONS_H_
