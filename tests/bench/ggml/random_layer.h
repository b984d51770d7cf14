// Weights and requests out of seeded random numbers, and what the layer makes of them, computed
// plainly.
#ifndef EXPERTMESH_TESTS_BENCH_GGML_RANDOM_LAYER_H_
#define EXPERTMESH_TESTS_BENCH_GGML_RANDOM_LAYER_H_

#include <cstdint>
#include <vector>

#include "tests/bench/ggml/rpc_layer.h"

namespace expertmesh::bench {

// The same for the same seed. What goes in and what comes out are about as large.
ExpertWeights RandomExpert(const MoeShape& shape, uint64_t seed);

// Every token its own experts, all equally likely; weights add up to 1.
RoutedRows RandomRows(const MoeShape& shape, int64_t tokens, uint64_t seed);

// [tokens, d_model], in double.
std::vector<double> PlainLayer(const MoeShape& shape, const std::vector<ExpertWeights>& experts,
                               const RoutedRows& rows);

// The largest |found - wanted| / |wanted| among the rows.
double RelativeError(const std::vector<float>& found, const std::vector<double>& wanted,
                     int64_t d_model);

}  // namespace expertmesh::bench

#endif  // EXPERTMESH_TESTS_BENCH_GGML_RANDOM_LAYER_H_
