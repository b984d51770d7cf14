// Shards: the experts of a layer in contiguous runs whose lengths differ by one at most.
#ifndef EXPERTMESH_COMMON_MODEL_EXPERT_SHARD_H_
#define EXPERTMESH_COMMON_MODEL_EXPERT_SHARD_H_

#include <cstdint>

namespace expertmesh {

// The run of shard `index` of `count` begins there and ends where the next one's begins.
constexpr uint32_t FirstExpertOfShard(uint32_t num_experts, uint32_t count, uint32_t index) {
  return static_cast<uint32_t>(uint64_t{index} * num_experts / count);
}

// The shard whose run `expert` is in. At most as many shards as experts.
constexpr uint32_t ShardOfExpert(uint32_t num_experts, uint32_t count, uint32_t expert) {
  return static_cast<uint32_t>(((uint64_t{expert} + 1) * count - 1) / num_experts);
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MODEL_EXPERT_SHARD_H_
