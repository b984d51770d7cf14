// Random tensors whose bytes depend on a seed and a name only.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_RANDOM_TENSOR_H_
#define EXPERTMESH_COMMON_CHECKPOINT_RANDOM_TENSOR_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "common/tensor/dtype.h"

namespace expertmesh::checkpoint {

// A sequence of normal values, addressed by position: any part can be made on its own. Values come
// from 65536 equally likely quantiles, reach out to 4.3 deviations, and are never 0. Immutable and
// thread-safe.
class NormalSequence {
 public:
  NormalSequence(uint64_t seed, absl::string_view name);

  // Writes elements [begin, begin + count) with standard deviation `deviation`, as `dtype` (an
  // activation type). `begin` must be a multiple of 4.
  void Fill(uint64_t begin, uint64_t count, float deviation, Dtype dtype, void* target) const;

 private:
  uint64_t key_;
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_RANDOM_TENSOR_H_
