// The one copy on the way in: from received slices, in whatever pieces and alignment, into a
// matrix. And the way out of one, without a copy where that pays.
#ifndef EXPERTMESH_COMMON_WIRE_TENSOR_COPY_H_
#define EXPERTMESH_COMMON_WIRE_TENSOR_COPY_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/buffer_pool.h"
#include "common/tensor/dtype.h"
#include "common/wire/message_codec.h"

namespace expertmesh {

// Copies all rows of `tensor` to `target` [rows, cols] of `dtype`, an activation type, converting
// on the way. `target` must have room for rows * cols elements and be aligned for them. Returns
// whether all of them are finite, which costs next to nothing: they are in the cache.
bool DecodeRows(const TensorFrame& tensor, Dtype dtype, void* target);

// The same. Returns how many rows have a NaN or an infinity after conversion (an F32 value beyond
// the range of F16 counts, and so does a scale that is NaN).
uint64_t CopyRows(const TensorFrame& tensor, Dtype dtype, void* target);

// Appends `rows` of `matrix`, each of `row_bytes`, one after the other. Runs of consecutive rows
// that are kShareFrom bytes long on average are shared where they lie; shorter ones are copied
// together, to memory from `pool` if that is not null.
void SelectRows(const std::shared_ptr<const AlignedBuffer>& matrix, size_t row_bytes,
                absl::Span<const uint32_t> rows, BufferPool* pool, Frame* frame);

// Sending this much from where it lies costs about as much as copying it.
inline constexpr size_t kShareFrom = 2048;

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_TENSOR_COPY_H_
