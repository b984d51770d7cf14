// ForwardStream over one bidirectional call.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_STREAM_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_STREAM_H_

#include <memory>
#include <string>

#include "client/cpp/expertmesh/client.h"
#include "common/base/timer_queue.h"
#include "common/net/grpc_client.h"

namespace expertmesh::client {

// `client` and `timers` (on Clock::Real()) must outlive the stream; `address` is for messages.
std::unique_ptr<ForwardStream> OpenForwardStream(net::GrpcClient* client, TimerQueue* timers,
                                                 const std::string& address, size_t window_bytes);

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_FORWARD_STREAM_H_
