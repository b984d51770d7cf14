// The way out: rows of a matrix in the type that a link carries. What a row becomes depends on that
// row alone, so its bits are the same in any batch.
#ifndef EXPERTMESH_COMMON_WIRE_TENSOR_ENCODE_H_
#define EXPERTMESH_COMMON_WIRE_TENSOR_ENCODE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/buffer_pool.h"
#include "common/tensor/dtype.h"
#include "common/wire/message_codec.h"

namespace expertmesh {

// Bytes of a row of `cols` elements of a type of the wire, scales included.
uint64_t WireRowBytes(Dtype dtype, uint64_t cols);

// A tensor that is encoded row by row, in any order, by any number of threads at once.
class RowEncoder {
 public:
  // From rows of `from`, an activation type, to any type of the wire, in memory of the tensor's
  // own, or of `pool` if that is not null.
  RowEncoder(Dtype from, size_t rows, size_t cols, Dtype to, BufferPool* pool);

  // Row `row` of the tensor, from [cols] of `from`. False when a finite element of it is infinite
  // now: the row is beyond the range of the tensor's type.
  bool Encode(size_t row, const void* source) const;

  // Where row `row` and those behind it go. A tensor of `from` may be written here instead.
  void* Place(size_t row) const { return data_->data() + row * cols_ * BytesOf(to_); }

  // When all rows have been encoded; once.
  TensorFrame Finish();

 private:
  const Dtype from_;
  const Dtype to_;
  const size_t rows_;
  const size_t cols_;
  std::shared_ptr<AlignedBuffer> data_;
  std::shared_ptr<AlignedBuffer> scales_;  // Null where the type has none.
};

// Rows `rows`, in this order, of `matrix` [.., cols] of `from`, an activation type: gathered and
// converted to `to` (any type of the wire) in one step, into memory of the result's own, or of
// `pool` if that is not null.
TensorFrame EncodeRows(Dtype from, const void* matrix, absl::Span<const uint32_t> rows, size_t cols,
                       Dtype to, BufferPool* pool = nullptr);

// All of `matrix` [rows, cols].
TensorFrame EncodeRows(Dtype from, const void* matrix, size_t rows, size_t cols, Dtype to,
                       BufferPool* pool = nullptr);

// Rows [first, first + count), sharing the bytes.
TensorFrame RowsOf(const TensorFrame& tensor, uint64_t first, uint64_t count);

// The largest magnitude among the finite elements of a row [cols] of `from`, an activation type.
float LargestFinite(Dtype from, const void* row, size_t cols);

// Whether a value of `from` may change on its way as `to`.
bool IsLossy(Dtype from, Dtype to);

// True when a finite value of `from` can be beyond the range of `to`.
bool CanOverflow(Dtype from, Dtype to);

// |after - before| / |before|, Euclidean norms; 0 when they are the same, not finite when something
// in them is not.
double RelativeChange(const float* before, const float* after, size_t count);

// What a row [cols] of `from` loses on its way as `to`: |decoded - x| / |x|, Euclidean norms. 0 for
// a row of zeros; not finite when something in the row is not, or is no longer. `pool`, if not
// null, lends memory to work in.
double EncodingError(Dtype from, const void* row, size_t cols, Dtype to,
                     BufferPool* pool = nullptr);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_TENSOR_ENCODE_H_
