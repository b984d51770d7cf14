// The harness's own choices: quick, and the same for a seed on every machine.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_RANDOM_H_
#define EXPERTMESH_TESTS_CUDA_HOST_RANDOM_H_

#include <cstdint>
#include <utility>

namespace expertmesh::cuda_host {

// SplitMix64. Not thread-safe.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [0, bound); bound is in [1, 2^32].
  uint64_t Below(uint64_t bound) { return ((Next() >> 32) * bound) >> 32; }

  // Into a random order.
  template <typename T>
  void Shuffle(T* values, uint64_t count) {
    for (uint64_t i = count; i > 1; --i) {
      std::swap(values[i - 1], values[Below(i)]);
    }
  }

 private:
  uint64_t state_;
};

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_RANDOM_H_
