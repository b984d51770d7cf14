// Experts with random weights, and what they compute by the plainest means: double precision, one
// loop per sum.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_EXPERT_ORACLE_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_EXPERT_ORACLE_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "common/model/expert_weights.h"
#include "common/model/model_description.h"
#include "common/tensor/dtype.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh {

inline float RoundTo(DType dtype, float value) {
  return dtype == DType::kBF16  ? FloatFromBF16(BF16FromFloat(value))
         : dtype == DType::kF16 ? FloatFromF16(F16FromFloat(value))
                                : value;
}

// `count` values around 0, rounded to `dtype`.
inline std::vector<float> RandomValues(std::mt19937& random, size_t count, float spread,
                                       DType dtype) {
  std::uniform_real_distribution<float> uniform(-spread, spread);
  std::vector<float> values(count);
  for (float& value : values) {
    value = RoundTo(dtype, uniform(random));
  }
  return values;
}

inline std::vector<uint8_t> Encode(DType dtype, const std::vector<float>& values) {
  std::vector<uint8_t> bytes(values.size() * BytesOf(dtype));
  ConvertElements(DType::kF32, values.data(), dtype, bytes.data(), values.size());
  return bytes;
}

// One expert: values as float, and the same as a checkpoint of type `dtype` would hold them.
struct TestExpert {
  TestExpert(std::mt19937& random, size_t d, size_t i, DType dtype)
      : d_model(d),
        intermediate(i),
        type(dtype),
        gate(RandomValues(random, d * i, 2.0f / std::sqrt(static_cast<float>(d)), dtype)),
        up(RandomValues(random, d * i, 2.0f / std::sqrt(static_cast<float>(d)), dtype)),
        down(RandomValues(random, d * i, 2.0f / std::sqrt(static_cast<float>(i)), dtype)),
        gate_bytes(Encode(dtype, gate)),
        up_bytes(Encode(dtype, up)),
        down_bytes(Encode(dtype, down)) {}

  ExpertOptions options() const {
    return {static_cast<uint32_t>(d_model), static_cast<uint32_t>(intermediate), Activation::kSilu};
  }
  ExpertWeights weights() const {
    return {MatrixView::RowMajor(gate_bytes.data(), type, intermediate, d_model),
            MatrixView::RowMajor(up_bytes.data(), type, intermediate, d_model),
            MatrixView::RowMajor(down_bytes.data(), type, d_model, intermediate)};
  }

  // Adds weight * expert(x) to `sum`, with weights rounded to `compute`.
  void Apply(const std::vector<double>& x, double weight, DType compute,
             std::vector<double>* sum) const {
    std::vector<double> hidden(intermediate);
    for (size_t i = 0; i < intermediate; ++i) {
      double g = 0.0;
      double u = 0.0;
      for (size_t c = 0; c < d_model; ++c) {
        g += x[c] * static_cast<double>(RoundTo(compute, gate[i * d_model + c]));
        u += x[c] * static_cast<double>(RoundTo(compute, up[i * d_model + c]));
      }
      hidden[i] = g / (1.0 + std::exp(-g)) * u;
    }
    for (size_t c = 0; c < d_model; ++c) {
      double y = 0.0;
      for (size_t i = 0; i < intermediate; ++i) {
        y += hidden[i] * static_cast<double>(RoundTo(compute, down[c * intermediate + i]));
      }
      (*sum)[c] += weight * y;
    }
  }

  size_t d_model;
  size_t intermediate;
  DType type;
  std::vector<float> gate, up, down;
  std::vector<uint8_t> gate_bytes, up_bytes, down_bytes;
};

// |actual - expected| / |expected|, Euclidean; the plain distance when `expected` is zero.
inline double RelativeError(const float* actual, const std::vector<double>& expected) {
  double difference = 0.0;
  double norm = 0.0;
  for (size_t c = 0; c < expected.size(); ++c) {
    const double delta = static_cast<double>(actual[c]) - expected[c];
    difference += delta * delta;
    norm += expected[c] * expected[c];
  }
  return norm > 0.0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_EXPERT_ORACLE_H_
