// An expert packed for oneDNN. Private to common/experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_CPU_EXPERT_H_
#define EXPERTMESH_COMMON_EXPERTS_CPU_EXPERT_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/experts/backend.h"
#include "common/experts/matmul.h"
#include "common/experts/packed_memory.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"

namespace expertmesh {

// Sizes of an expert's two products. Padding is zero weights, which add nothing.
struct ExpertSizes {
  size_t d_model = 0;
  // Of the slice.
  size_t intermediate = 0;

  // [up_inner, up_columns]: gate and up side by side, in turns of kInterleave columns.
  size_t up_inner() const { return RoundUp(d_model, kInnerStep); }
  size_t up_columns() const { return 2 * RoundUp(intermediate, kInnerStep); }
  // [down_inner, down_columns].
  size_t down_inner() const { return RoundUp(intermediate, kInnerStep); }
  size_t down_columns() const { return RoundUp(d_model, kColumnStep); }
};

// Checks everything but values. INVALID_ARGUMENT names the matrix or option.
absl::StatusOr<ExpertSizes> CheckExpert(const ExpertOptions& options, const ExpertWeights& weights,
                                        IntermediateSlice slice);

class CpuExpert final : public PackedExpert {
 public:
  // Weights must have passed CheckExpert, which gave `sizes`; `up` and `down` are of these sizes.
  static absl::StatusOr<std::shared_ptr<const CpuExpert>> Pack(
      const ExpertSizes& sizes, const ExpertWeights& weights, IntermediateSlice slice,
      std::shared_ptr<const MatmulShape> up, std::shared_ptr<const MatmulShape> down,
      bool huge_pages);

  size_t bytes() const override { return memory_.size(); }

  size_t d_model() const { return d_model_; }
  const MatmulShape& up() const { return *up_; }
  const MatmulShape& down() const { return *down_; }
  const uint8_t* up_weights() const { return memory_.data(); }
  const uint8_t* down_weights() const { return memory_.data() + up_->bytes(); }

 private:
  CpuExpert() = default;

  size_t d_model_ = 0;
  std::shared_ptr<const MatmulShape> up_;
  std::shared_ptr<const MatmulShape> down_;
  PackedMemory memory_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_EXPERTS_CPU_EXPERT_H_
