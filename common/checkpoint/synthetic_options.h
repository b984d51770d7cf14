// Sizes of a synthetic checkpoint.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_OPTIONS_H_
#define EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "common/tensor/dtype.h"

namespace expertmesh {

struct SyntheticOptions {
  // Name in the table of families.
  std::string family = "qwen3_moe";
  // Same seed, same bytes: a tensor depends on the seed, its name, its shape and its type only.
  uint64_t seed = 1;
  // kF32, kF16 or kBF16.
  DType dtype = DType::kBF16;
  uint32_t d_model = 256;
  uint32_t num_layers = 2;
  uint32_t num_experts = 8;
  uint32_t top_k = 2;
  // Width of one expert.
  uint32_t intermediate_size = 128;
  uint32_t vocab_size = 1024;
  // Leading layers without experts (not mixtral), and their width; 0: four times that of an expert.
  uint32_t dense_layers = 0;
  uint32_t dense_intermediate_size = 0;
  // deepseek_v3 only: experts that every token passes through, and the group limit of the gate.
  uint32_t shared_experts = 1;
  uint32_t n_group = 1;
  uint32_t topk_group = 1;
  // A file is closed before it grows beyond this; one file (and no index) when all fits. A single
  // tensor may exceed it.
  uint64_t max_shard_bytes = uint64_t{5'000'000'000};
  // Called now and then, with bytes of tensors; the last call has done == total. May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_OPTIONS_H_
