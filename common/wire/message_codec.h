// Encoding of the messages that carry a tensor, without copying the tensor's bytes.
//
// ForwardRequest, ForwardResponse, ComputeRequest and ComputeResponse all have their Tensor in
// field 1000. On the wire they are exactly what generated code writes and reads, in any field
// order. Here the small fields go through the generated message (which never holds the tensor), and
// the tensor's data stays where it is: as slices of the received frame, or as slices that the
// sender appends.
#ifndef EXPERTMESH_COMMON_WIRE_MESSAGE_CODEC_H_
#define EXPERTMESH_COMMON_WIRE_MESSAGE_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tensor/buffer_pool.h"
#include "common/tensor/dtype.h"
#include "common/wire/frame.h"
#include "expertmesh/internal/v1/expert.pb.h"
#include "expertmesh/v1/router.pb.h"

namespace expertmesh {

// A matrix of activations inside a frame.
struct TensorFrame {
  Dtype dtype = Dtype::kF32;  // A type of the wire (wire_dtype.h).
  uint64_t rows = 0;
  uint64_t cols = 0;
  Frame data;  // rows * cols elements, row-major; may start at any address.
  // kI8Block128: one float32 per block, row by row (int8_blocks.h). Empty for other types.
  Frame scales = {};
};

// A message and the tensor it carries. `message` itself has no tensor set.
template <typename Message>
struct TensorMessage {
  Message message;
  // There is a tensor, and it is valid.
  bool has_tensor = false;
  TensorFrame tensor;
  // INVALID_ARGUMENT when there is a tensor and it is not valid: `message` still tells whom to
  // answer.
  absl::Status tensor_status;
};

// Message is one of the four above; explicitly instantiated for these.
//
// INVALID_ARGUMENT when the bytes are no such message; OUT_OF_RANGE when there are more than
// `most_others` beside those of the tensor, of which no more is then read: parsing takes some 30 ns
// for each byte of a list. Of the tensor it checks everything that the
// bytes alone tell: dtype, two dimensions, product of the shape without overflow, byte counts of
// data and scales; messages name the field, the value and what is accepted. Allocates nothing in
// proportion to a number that is merely claimed.
template <typename Message>
absl::StatusOr<TensorMessage<Message>> DecodeTensorMessage(
    const Frame& frame, size_t most_others = std::numeric_limits<int32_t>::max());

// The same into `result`, of which everything else is overwritten: `message` is merged into
// result->message. Who empties that first keeps its memory; then nothing is allocated but for
// fields that are longer than any before.
template <typename Message>
absl::Status DecodeTensorMessage(const Frame& frame, TensorMessage<Message>* result,
                                 size_t most_others = std::numeric_limits<int32_t>::max());

// `tensor` may be null. `message` must not have its tensor field set. `pool`, if not null, lends
// the memory of what is not the tensor's data.
template <typename Message>
Frame EncodeTensorMessage(const Message& message, const TensorFrame* tensor,
                          BufferPool* pool = nullptr);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_MESSAGE_CODEC_H_
