// An expert packed for products. Private to common/experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_CPU_EXPERT_H_
#define EXPERTMESH_COMMON_EXPERTS_CPU_EXPERT_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/experts/backend.h"
#include "common/experts/elementwise.h"
#include "common/experts/matmul.h"
#include "common/experts/packed_memory.h"
#include "common/experts/weight_packer.h"
#include "common/experts/weight_storage.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"

namespace expertmesh::experts {

class CpuExpert final : public PackedExpert {
 public:
  // `weights` are those of the slice, have passed CheckExpert, and are of `sizes`; so are `up` and
  // `down`.
  static absl::StatusOr<std::shared_ptr<const CpuExpert>> Pack(
      const ExpertOptions& options, const ExpertSizes& sizes, const ExpertWeights& weights,
      std::shared_ptr<const MatmulShape> up, std::shared_ptr<const MatmulShape> down,
      WeightStorage storage, bool huge_pages);
  // What it will hold.
  static size_t PackedBytes(const ExpertSizes& sizes, const ExpertWeights& weights,
                            const MatmulShape& up, const MatmulShape& down, WeightStorage storage);

  size_t bytes() const override { return memory_.size(); }

  const ExpertSizes& sizes() const { return sizes_; }
  const ActivationOptions& activation() const { return activation_; }
  const MatmulShape& up() const { return *up_; }
  const MatmulShape& down() const { return *down_; }
  // kCompressed: what WeightPacker packs for each use.
  bool compressed() const { return compressed_; }
  const ExpertWeights& stored() const { return stored_; }
  // kExpanded: the packed matrices.
  const uint8_t* up_weights() const { return memory_.data(); }
  const uint8_t* down_weights() const { return memory_.data() + up_->bytes(); }
  // Null when the expert has none. [up().columns()], in the order of the product's columns.
  const float* up_bias() const { return up_bias_; }
  // Null when the expert has none, or as another slice. [d_model].
  const float* down_bias() const { return down_bias_; }

 private:
  CpuExpert() = default;
  void PackMatrices(const ExpertWeights& weights);
  void CopyMatrices(const ExpertWeights& weights);
  void StoreBiases(const ExpertWeights& weights, float* target);

  ExpertSizes sizes_;
  ActivationOptions activation_;
  std::shared_ptr<const MatmulShape> up_;
  std::shared_ptr<const MatmulShape> down_;
  bool compressed_ = false;
  PackedMemory memory_;
  ExpertWeights stored_;  // Views of `memory_`.
  const float* up_bias_ = nullptr;
  const float* down_bias_ = nullptr;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CPU_EXPERT_H_
