#include "tests/bench/ggml/random_layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "common/tensor/dtype.h"

namespace expertmesh::bench {
namespace {

// Uniform with variance 1 / columns. Gigabytes of these are made: no normal distribution.
std::vector<uint16_t> RandomMatrix(int64_t rows, int64_t columns, std::mt19937_64* random) {
  const float width = std::sqrt(12.0f / static_cast<float>(columns));
  std::vector<uint16_t> values(static_cast<size_t>(rows * columns));
  for (uint16_t& value : values) {
    value = BF16FromFloat((static_cast<float>((*random)() >> 40) * 0x1p-24f - 0.5f) * width);
  }
  return values;
}

double Dot(const uint16_t* weights, const double* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    sum += static_cast<double>(FloatFromBF16(weights[i])) * values[i];
  }
  return sum;
}

void AddExpert(const MoeShape& shape, const ExpertWeights& expert, double weight,
               const double* hidden, double* sum) {
  std::vector<double> inner(static_cast<size_t>(shape.intermediate));
  for (int64_t i = 0; i < shape.intermediate; ++i) {
    const double gate =
        Dot(&expert.gate[static_cast<size_t>(i * shape.d_model)], hidden, shape.d_model);
    const double up =
        Dot(&expert.up[static_cast<size_t>(i * shape.d_model)], hidden, shape.d_model);
    inner[static_cast<size_t>(i)] = gate / (1 + std::exp(-gate)) * up;
  }
  for (int64_t i = 0; i < shape.d_model; ++i) {
    sum[i] += weight * Dot(&expert.down[static_cast<size_t>(i * shape.intermediate)], inner.data(),
                           shape.intermediate);
  }
}

}  // namespace

ExpertWeights RandomExpert(const MoeShape& shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  return {RandomMatrix(shape.intermediate, shape.d_model, &random),
          RandomMatrix(shape.intermediate, shape.d_model, &random),
          RandomMatrix(shape.d_model, shape.intermediate, &random)};
}

RoutedRows RandomRows(const MoeShape& shape, int64_t tokens, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> share(0.5f, 1.5f);
  RoutedRows rows;
  rows.tokens = tokens;
  rows.hidden.resize(static_cast<size_t>(tokens * shape.d_model));
  std::generate(rows.hidden.begin(), rows.hidden.end(), [&] { return normal(random); });
  std::vector<int32_t> all(static_cast<size_t>(shape.experts));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t token = 0; token < tokens; ++token) {
    std::shuffle(all.begin(), all.end(), random);
    std::vector<float> weights(static_cast<size_t>(shape.top_k));
    std::generate(weights.begin(), weights.end(), [&] { return share(random); });
    const float sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
    for (size_t choice = 0; choice < weights.size(); ++choice) {
      rows.experts.push_back(all[choice]);
      rows.weights.push_back(weights[choice] / sum);
    }
  }
  return rows;
}

std::vector<double> PlainLayer(const MoeShape& shape, const std::vector<ExpertWeights>& experts,
                               const RoutedRows& rows) {
  std::vector<double> output(rows.hidden.size());
  const std::vector<double> hidden(rows.hidden.begin(), rows.hidden.end());
  for (size_t i = 0; i < rows.experts.size(); ++i) {
    const size_t row = i / static_cast<size_t>(shape.top_k) * static_cast<size_t>(shape.d_model);
    AddExpert(shape, experts[static_cast<size_t>(rows.experts[i])], rows.weights[i], &hidden[row],
              &output[row]);
  }
  return output;
}

double RelativeError(const std::vector<float>& found, const std::vector<double>& wanted,
                     int64_t d_model) {
  double worst = 0;
  const auto width = static_cast<size_t>(d_model);
  for (size_t begin = 0; begin < wanted.size(); begin += width) {
    double error = 0;
    double size = 0;
    for (size_t i = begin; i < begin + width; ++i) {
      error += (found[i] - wanted[i]) * (found[i] - wanted[i]);
      size += wanted[i] * wanted[i];
    }
    const double relative = std::sqrt(error / size);
    // Not std::max: NaN must not pass.
    worst = relative <= worst ? worst : relative;
  }
  return worst;
}

}  // namespace expertmesh::bench
