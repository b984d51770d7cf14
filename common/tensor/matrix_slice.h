// Parts of matrices, the memory that they take where they are stored, and copies of them.
#ifndef EXPERTMESH_COMMON_TENSOR_MATRIX_SLICE_H_
#define EXPERTMESH_COMMON_TENSOR_MATRIX_SLICE_H_

#include <cstddef>
#include <cstdint>

#include "common/tensor/matrix_view.h"

namespace expertmesh {

// Rows [begin, begin + count) of `view`, which has them. Blocks of scales may be cut.
MatrixView RowsOf(const MatrixView& view, size_t begin, size_t count);

// Columns [begin, begin + count) of `view`, which has them. Blocks of scales may be cut; of kF4
// `begin` must be even.
MatrixView ColumnsOf(const MatrixView& view, size_t begin, size_t count);

// Bytes of its values (of kF4 a row is whole bytes), and of the scales of every block that it has
// an element of.
uint64_t StoredBytes(const MatrixView& view);

// Copies `view` to `target`, StoredBytes(view) of memory: values of the same type, row-major, then
// scales. Returns a view of the copy, which is the same matrix.
MatrixView CopyStored(const MatrixView& view, uint8_t* target);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_MATRIX_SLICE_H_
