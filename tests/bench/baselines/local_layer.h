// A layer of a checkpoint in this process: gate and experts, by the project's own libraries.
#ifndef EXPERTMESH_TESTS_BENCH_BASELINES_LOCAL_LAYER_H_
#define EXPERTMESH_TESTS_BENCH_BASELINES_LOCAL_LAYER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "common/experts/backend.h"
#include "common/gate/gate.h"
#include "common/model/model_description.h"
#include "common/tensor/dtype.h"
#include "tests/bench/baselines/target.h"

namespace expertmesh::bench {

struct LocalLayer {
  MoeLayerDescription description;
  uint32_t d_model = 0;
  Dtype dtype = Dtype::kF32;
  std::unique_ptr<const gate::Gate> gate;
  std::vector<float> select_bias;
  std::unique_ptr<experts::Backend> backend;
  // [num_experts]; null where not held.
  std::vector<std::shared_ptr<const experts::PackedExpert>> experts;
  // Null when the layer has none.
  std::shared_ptr<const experts::PackedExpert> shared;

  // With the experts that `holds` says.
  static absl::StatusOr<LocalLayer> Load(const TargetOptions& options,
                                         absl::FunctionRef<bool(uint32_t expert)> holds);

  absl::Status Route(const client::Matrix& hidden, gate::RoutedTokens* routed) const;
  // output [rows, d_model] += the shared experts of the rows of `hidden`.
  absl::Status AddShared(const void* hidden, size_t rows, float* output) const;
};

}  // namespace expertmesh::bench

#endif  // EXPERTMESH_TESTS_BENCH_BASELINES_LOCAL_LAYER_H_
