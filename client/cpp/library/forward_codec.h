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

// A ForwardRequest that shares the bytes of `hidden`. INVALID_ARGUMENT when these are not rows *
// cols elements.
absl::StatusOr<Frame> EncodeForward(uint64_t request_id, uint32_t layer, const Matrix& hidden,
                                    const ForwardOptions& options);

struct ForwardAnswer {
  uint64_t request_id = 0;
  // The request's own error, or INTERNAL when the answer contradicts itself.
  absl::StatusOr<ForwardResult> result = absl::UnknownError("");
};

// INTERNAL when the frame is no ForwardResponse: then it is unknown which request it answers.
absl::StatusOr<ForwardAnswer> DecodeForward(const Frame& frame);

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_CODEC_H_
