// Between the client's types and frames of the contract.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_CODEC_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_CODEC_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/expertmesh/client.h"
#include "common/tensor/dtype.h"
#include "common/wire/frame.h"

namespace expertmesh::client {

expertmesh::Dtype ToInternal(Dtype dtype);
// `dtype` must be an activation type.
Dtype FromInternal(expertmesh::Dtype dtype);

// A ForwardRequest that shares the bytes of `hidden`; it and its answer have `max_message_bytes` at
// most.
//   INVALID_ARGUMENT    `hidden` is not rows * cols elements.
//   RESOURCE_EXHAUSTED  larger; the message names the field that has the most.
absl::StatusOr<Frame> EncodeForward(uint64_t request_id, uint32_t layer, const Matrix& hidden,
                                    const ForwardOptions& options, uint64_t max_message_bytes);

// A ForwardRequest that is a heartbeat.
Frame EncodeHeartbeat();

struct ForwardAnswer {
  uint64_t request_id = 0;
  // It answers a heartbeat; `result` means nothing.
  bool heartbeat = false;
  // The request's own error, or INTERNAL when the answer contradicts itself.
  absl::StatusOr<ForwardResult> result = absl::UnknownError("");
};

// INTERNAL when the frame is no ForwardResponse: then it is unknown which request it answers.
absl::StatusOr<ForwardAnswer> DecodeForward(const Frame& frame);

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_CODEC_H_
