// Inside of grpc_server: one call of a raw method, from waiting for a client to its last operation.
#ifndef EXPERTMESH_COMMON_NET_SERVER_CALLS_H_
#define EXPERTMESH_COMMON_NET_SERVER_CALLS_H_

#include <cstddef>
#include <memory>

#include "common/net/grpc_runtime.h"
#include "common/net/grpc_server.h"

namespace expertmesh {

// What calls of one queue of a server share.
struct ServerQueue {
  LiveCalls* calls = nullptr;  // Used until the call is over.
  grpc::ServerCompletionQueue* queue = nullptr;
  size_t max_message_bytes = 0;
  size_t send_queue_bytes = 0;
};

// Waits for one call of the method; when it comes, waits for the next. `method` must outlive it.
void AwaitUnaryCall(const ServerQueue& host, const RawUnaryMethod* method);
void AwaitStreamCall(const ServerQueue& host, const RawStreamMethod* method);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_NET_SERVER_CALLS_H_
