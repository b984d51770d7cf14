// Options, and a batch that owns its memory, for tests of the CUDA backend.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CUDA_OWNED_BATCH_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CUDA_OWNED_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "common/experts/backend.h"
#include "common/experts/cuda/cuda_backend.h"
#include "common/tensor/dtype.h"
#include "gtest/gtest.h"
#include "tests/unit/common/tensor/stored_matrix.h"

namespace expertmesh::experts {

inline CudaBackendOptions CudaOptions(Dtype dtype, CudaProduct product) {
  CudaBackendOptions options;
  options.compute_dtype = dtype;
  options.product = product;
  return options;
}

class OwnedBatch {
 public:
  using Packed = std::vector<std::shared_ptr<const PackedExpert>>;

  // Random rows without assignments.
  OwnedBatch(std::mt19937& random, Dtype dtype, size_t rows, size_t d_model)
      : rows_(rows),
        d_model_(d_model),
        assignments_(rows),
        hidden_(rows * d_model * BytesOf(dtype)) {
    const std::vector<float> values = RandomValues(random, rows * d_model, 1.0f, dtype);
    ConvertElements(Dtype::kF32, values.data(), dtype, hidden_.data(), values.size());
  }

  void Assign(size_t row, size_t expert, float weight) {
    assignments_[row].push_back({expert, weight});
  }
  void ClearAssignments() { assignments_.assign(rows_, {}); }

  // What Submit takes; `partials` has room. It and this must live until the end.
  GroupedBatch Grouped(const Packed& packed, float* partials) {
    row_begin_.assign(1, 0);
    experts_.clear();
    weights_.clear();
    for (const auto& row : assignments_) {
      for (const auto& [expert, weight] : row) {
        experts_.push_back(packed[expert].get());
        weights_.push_back(weight);
      }
      row_begin_.push_back(static_cast<uint32_t>(experts_.size()));
    }
    return {hidden_.data(),       rows_,   d_model_, row_begin_, experts_, weights_,
            ApplyWeight::kOutput, partials};
  }
  size_t size() const { return rows_ * d_model_; }

  absl::Status Compute(Backend& backend, const Packed& packed, std::vector<float>* partials) {
    partials->assign(size(), 12345.0f);  // What is not written shows.
    return experts::Compute(backend, Grouped(packed, partials->data()));
  }
  std::vector<float> Run(Backend& backend, const Packed& packed) {
    std::vector<float> partials;
    const absl::Status status = Compute(backend, packed, &partials);
    EXPECT_TRUE(status.ok()) << status;
    return partials;
  }

 private:
  size_t rows_;
  size_t d_model_;
  std::vector<std::vector<std::pair<size_t, float>>> assignments_;
  std::vector<uint8_t> hidden_;
  std::vector<uint32_t> row_begin_;
  std::vector<const PackedExpert*> experts_;
  std::vector<float> weights_;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CUDA_OWNED_BATCH_H_
