// Matrices of normally distributed numbers, the same for the same seed.
#ifndef EXPERTMESH_TESTS_SUPPORT_RANDOM_VALUES_H_
#define EXPERTMESH_TESTS_SUPPORT_RANDOM_VALUES_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "common/tensor/dtype.h"

namespace expertmesh {

// Around 0, with standard deviation `spread`.
inline std::vector<float> NormalValues(size_t count, std::mt19937& random, float spread = 1.0f) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(random);
  }
  return values;
}

inline std::vector<float> NormalValues(size_t count, uint32_t seed, float spread = 1.0f) {
  std::mt19937 random(seed);
  return NormalValues(count, random, spread);
}

// The same, rounded to bfloat16: exact in every type but float16.
inline std::vector<float> NormalBF16Values(size_t count, std::mt19937& random,
                                           float spread = 1.0f) {
  std::vector<float> values = NormalValues(count, random, spread);
  for (float& value : values) {
    value = FloatFromBF16(BF16FromFloat(value));
  }
  return values;
}

inline std::vector<float> NormalBF16Values(size_t count, uint32_t seed, float spread = 1.0f) {
  std::mt19937 random(seed);
  return NormalBF16Values(count, random, spread);
}

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_RANDOM_VALUES_H_
