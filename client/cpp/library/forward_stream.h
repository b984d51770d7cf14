// ForwardStream over bidirectional calls, one after the other.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_STREAM_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_STREAM_H_

#include <memory>

#include "client/cpp/expertmesh/client.h"
#include "client/cpp/library/stream_requests.h"

namespace expertmesh::client {

std::unique_ptr<ForwardStream> OpenForwardStream(const ForwardStreamOptions& options);

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_STREAM_H_
