// A checksum of a frame between router and node: a bit that flips on its way, or in a memory on the
// way, shows.
#ifndef EXPERTMESH_COMMON_WIRE_FRAME_CHECKSUM_H_
#define EXPERTMESH_COMMON_WIRE_FRAME_CHECKSUM_H_

#include <cstdint>

#include "common/wire/message_codec.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh {

// XXH3, 64 bits, over every field that tells which rows these are and what is to be done with them,
// and over type, shape, scales and data of the tensor. Not over the checksum itself, tracing,
// extensions and timings.
uint64_t ChecksumOf(const internal::v1::ComputeRequest& request, const TensorFrame& hidden_states);
uint64_t ChecksumOf(const internal::v1::ComputeResponse& response, const TensorFrame& partials);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_FRAME_CHECKSUM_H_
