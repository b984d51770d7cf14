// The one copy on the way in: from received slices, in whatever pieces and alignment, into a
// matrix.
#ifndef EXPERTMESH_COMMON_WIRE_TENSOR_COPY_H_
#define EXPERTMESH_COMMON_WIRE_TENSOR_COPY_H_

#include "common/tensor/dtype.h"
#include "common/wire/message_codec.h"

namespace expertmesh {

// Copies all rows of `tensor` to `target` [rows, cols] of `dtype`, an activation type, converting
// on the way. `target` must have room for rows * cols elements and be aligned for them.
void DecodeRows(const TensorFrame& tensor, DType dtype, void* target);

// The same. Returns how many rows have a NaN or an infinity after conversion (an F32 value beyond
// the range of F16 counts, and so does a scale that is NaN).
uint64_t CopyRows(const TensorFrame& tensor, DType dtype, void* target);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_TENSOR_COPY_H_
