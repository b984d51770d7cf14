// Weights as plain float32, decoded here and not by common/tensor: a mistake there must not be
// repeated in what it is checked against.
#ifndef EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MATRIX_H_
#define EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MATRIX_H_

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh::reference {

// Row-major.
struct FloatMatrix {
  size_t rows = 0;
  size_t cols = 0;
  std::vector<float> values;

  bool empty() const { return values.empty(); }
  const float* row(size_t index) const { return values.data() + index * cols; }
};

// Every type, layout and quantisation of MatrixView; an empty view gives an empty matrix.
// INVALID_ARGUMENT naming a type that no weight has.
absl::StatusOr<FloatMatrix> DecodeReference(const MatrixView& view);

// Products in float32, sixteen sums side by side, added up in double: far more exact than float32
// matrix multiplication, at its speed.
float ReferenceDot(const float* a, const float* b, size_t count);

}  // namespace expertmesh::reference

#endif  // EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MATRIX_H_
