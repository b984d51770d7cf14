// Experts with random weights, and what they compute by the plainest means: double precision, one
// loop per sum.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_EXPERT_ORACLE_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_EXPERT_ORACLE_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "common/model/expert_weights.h"
#include "common/model/model_description.h"
#include "common/tensor/dtype.h"
#include "common/tensor/matrix_view.h"
#include "tests/unit/common/tensor/stored_matrix.h"

namespace expertmesh::experts {

// One expert: values as float, and the same as a checkpoint would hold them.
class TestExpert {
 public:
  TestExpert(std::mt19937& random, const ExpertOptions& options, const Storage& storage)
      : options_(options) {
    const size_t d = options.d_model;
    const size_t i = options.intermediate_size;
    const float up_spread = 2.0f / std::sqrt(static_cast<float>(d));
    const float down_spread = 2.0f / std::sqrt(static_cast<float>(i));
    // Down has no partner to take turns with.
    Storage down_storage = storage;
    down_storage.in_turns = false;
    if (options.gated) {
      gate_ = StoredMatrix(random, i, d, up_spread, storage);
    }
    up_ = StoredMatrix(random, i, d, up_spread, storage);
    down_ = StoredMatrix(random, d, i, down_spread, down_storage);
    if (options.bias) {
      Storage bias = Storage::Plain(storage.quantised() ? Dtype::kBF16 : storage.type);
      up_bias_ = StoredMatrix(random, 1, i, 0.5f, bias);
      down_bias_ = StoredMatrix(random, 1, d, 0.5f, bias);
      gate_bias_ = options.gated ? StoredMatrix(random, 1, i, 0.5f, bias) : StoredMatrix();
    }
  }
  TestExpert(std::mt19937& random, size_t d, size_t i, Dtype dtype)
      : TestExpert(random, {static_cast<uint32_t>(d), static_cast<uint32_t>(i)},
                   Storage::Plain(dtype)) {}

  const ExpertOptions& options() const { return options_; }
  ExpertWeights weights() const {
    return {gate_.view(),      up_.view(),      down_.view(),
            gate_bias_.view(), up_bias_.view(), down_bias_.view()};
  }

  // What one of the three matrices stands for.
  const std::vector<float>& values(MatrixView ExpertWeights::*matrix) const {
    return (matrix == &ExpertWeights::gate ? gate_
            : matrix == &ExpertWeights::up ? up_
                                           : down_)
        .values;
  }

  // Adds weight * expert(x) to `sum`, with matrices rounded to `compute`.
  void Apply(const std::vector<double>& x, double weight, Dtype compute,
             std::vector<double>* sum) const {
    std::vector<double> hidden = Linear(up_, up_bias_, x, compute);
    const std::vector<double> gate =
        options_.gated ? Linear(gate_, gate_bias_, x, compute) : std::vector<double>();
    for (size_t i = 0; i < hidden.size(); ++i) {
      hidden[i] = options_.gated ? Gated(gate[i], hidden[i]) : Activated(hidden[i]);
    }
    const std::vector<double> y = Linear(down_, down_bias_, hidden, compute);
    for (size_t c = 0; c < y.size(); ++c) {
      (*sum)[c] += weight * y[c];
    }
  }

 private:
  static std::vector<double> Linear(const StoredMatrix& matrix, const StoredMatrix& bias,
                                    const std::vector<double>& x, Dtype compute) {
    std::vector<double> y(matrix.values.size() / x.size());
    for (size_t r = 0; r < y.size(); ++r) {
      for (size_t c = 0; c < x.size(); ++c) {
        y[r] += x[c] * static_cast<double>(RoundTo(compute, matrix.values[r * x.size() + c]));
      }
      y[r] += bias.values.empty() ? 0.0 : static_cast<double>(bias.values[r]);
    }
    return y;
  }
  static double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
  double Activated(double x) const {
    return options_.activation == Activation::kRelu ? std::max(x, 0.0) : x * Sigmoid(x);
  }
  double Gated(double gate, double up) const {
    if (options_.activation != Activation::kClampedSwiglu) {
      return Activated(gate) * up;
    }
    const double limit = static_cast<double>(options_.swiglu_limit);
    const double g = std::min(gate, limit);
    const double u = std::clamp(up, -limit, limit);
    return g * Sigmoid(static_cast<double>(options_.swiglu_alpha) * g) * (u + 1.0);
  }

  ExpertOptions options_;
  StoredMatrix gate_, up_, down_;
  StoredMatrix gate_bias_, up_bias_, down_bias_;
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

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_EXPERT_ORACLE_H_
