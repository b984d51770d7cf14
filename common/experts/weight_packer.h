// From an expert's weights as they are stored to the packed panels that products take. Private to
// common/experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_WEIGHT_PACKER_H_
#define EXPERTMESH_COMMON_EXPERTS_WEIGHT_PACKER_H_

#include <cstddef>
#include <cstdint>

#include "common/experts/matmul.h"
#include "common/model/expert_weights.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh::experts {

// Sizes of an expert's two products. Padding is zero weights, which add nothing.
struct ExpertSizes {
  size_t d_model = 0;
  // Width of the slice.
  size_t intermediate = 0;
  bool gated = true;

  // Columns of the first product that make one column of the second one's input.
  size_t turns() const { return gated ? 2 : 1; }
  // [up_inner, up_columns]: up alone, or gate and up side by side in turns of kInterleave columns.
  size_t up_inner() const { return matmul::RoundUp(d_model, kInnerStep); }
  size_t up_columns() const {
    return matmul::RoundUp(turns() * matmul::RoundUp(intermediate, kInnerStep), kColumnStep);
  }
  // [down_inner, down_columns].
  size_t down_inner() const { return matmul::RoundUp(intermediate, kInnerStep); }
  size_t down_columns() const { return matmul::RoundUp(d_model, kColumnStep); }
};

// Keeps its memory: the unpacked form of the largest panel so far. Not thread-safe.
class WeightPacker {
 public:
  // Panel `panel` of `split` to `packed`, shape.PanelBytes(split) of them. `weights` are those of
  // the slice, of the given sizes and decodable.
  void PackUp(const ExpertSizes& sizes, const ExpertWeights& weights, const MatmulShape& shape,
              const MatmulShape::Split& split, size_t panel, uint8_t* packed);
  void PackDown(const ExpertWeights& weights, const MatmulShape& shape,
                const MatmulShape::Split& split, size_t panel, uint8_t* packed);

 private:
  AlignedBuffer staging_;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_WEIGHT_PACKER_H_
