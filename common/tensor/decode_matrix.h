// Values of a weight as it lies in a checkpoint: every type, layout and quantisation of MatrixView.
#ifndef EXPERTMESH_COMMON_TENSOR_DECODE_MATRIX_H_
#define EXPERTMESH_COMMON_TENSOR_DECODE_MATRIX_H_

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh {

// Whether DecodeRow can read `view`. INVALID_ARGUMENT naming `what` and the type, strides or scales
// that it cannot.
absl::Status CheckDecodable(absl::string_view what, const MatrixView& view);

// Elements [begin, begin + count) of row `row` as float32; scale times element is rounded once.
// `view` has passed CheckDecodable. Thread-safe.
void DecodeRow(const MatrixView& view, size_t row, size_t begin, size_t count, float* target);

// Rows [row, row + rows) of columns [col, col + cols) as `type`, kF32 or kBF16; the float32
// products of scales and elements are rounded once. Row r goes to target + r * stride elements.
// `view` has passed CheckDecodable. Thread-safe.
void DecodeTile(const MatrixView& view, size_t row, size_t rows, size_t col, size_t cols,
                Dtype type, void* target, size_t stride);

// The whole matrix, row-major float32.
std::vector<float> DecodeMatrix(const MatrixView& view);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_DECODE_MATRIX_H_
