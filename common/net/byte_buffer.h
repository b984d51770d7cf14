// Frames as gRPC's byte buffers and back, sharing the bytes.
#ifndef EXPERTMESH_COMMON_NET_BYTE_BUFFER_H_
#define EXPERTMESH_COMMON_NET_BYTE_BUFFER_H_

#include <grpcpp/support/byte_buffer.h>

#include "common/wire/frame.h"

namespace expertmesh::net {

// The buffer keeps the owners of large slices until gRPC has let go of the bytes, which is later
// than the completion of the write; small slices are copied.
grpc::ByteBuffer ToByteBuffer(const Frame& frame);

// Takes the bytes out of `buffer`, which is empty afterwards.
Frame TakeFrame(grpc::ByteBuffer* buffer);

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_BYTE_BUFFER_H_
