// Inside of grpc_server: one call of a raw method, from waiting for a client to its last operation.
#ifndef EXPERTMESH_COMMON_NET_SERVER_CALLS_H_
#define EXPERTMESH_COMMON_NET_SERVER_CALLS_H_

#include <grpcpp/impl/codegen/async_stream.h>
#include <grpcpp/impl/codegen/async_unary_call.h>
#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "common/base/timer_queue.h"
#include "common/net/buffer_budget.h"
#include "common/net/grpc_runtime.h"
#include "common/net/grpc_server.h"
#include "common/net/reset_guard.h"

namespace expertmesh::net {

// All methods of a server, whatever service they belong to, as gRPC wants them registered: nothing
// is served by threads of gRPC's own.
class RawService final : public grpc::Service {
 public:
  // Keeps the pointers into `unary` and `streams`.
  RawService(const std::vector<RawUnaryMethod>& unary, const std::vector<RawStreamMethod>& streams);

  void RequestUnary(const RawUnaryMethod* method, grpc::ServerContext* context,
                    grpc::ByteBuffer* request,
                    grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* writer,
                    grpc::ServerCompletionQueue* queue, void* tag);
  void RequestStream(const RawStreamMethod* method, grpc::ServerContext* context,
                     grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>* stream,
                     grpc::ServerCompletionQueue* queue, void* tag);

 private:
  void Add(const std::string& name, grpc::internal::RpcMethod::RpcType type);

  const std::vector<RawUnaryMethod>& unary_;
  const std::vector<RawStreamMethod>& streams_;
  int methods_ = 0;
};

// What calls of one queue of a server share.
struct ServerQueue {
  // Used until the call is over.
  LiveCalls* calls = nullptr;
  TimerQueue* deadlines = nullptr;  // On Clock::Real().
  RawService* service = nullptr;
  grpc::ServerCompletionQueue* queue = nullptr;
  ResetGuard* resets = nullptr;
  size_t max_message_bytes = 0;
  size_t max_metadata_bytes = 0;
  size_t send_queue_bytes = 0;
  std::shared_ptr<BufferBudget> budget = nullptr;
  absl::Duration max_unread_time = absl::InfiniteDuration();
  absl::Duration max_stream_age = absl::InfiniteDuration();
};

// The context of a call that has arrived.
std::shared_ptr<CallContext> MakeCallContext(const grpc::ServerContext& rpc, bool streamed);

// RESOURCE_EXHAUSTED when the caller sent more than `max_bytes` of metadata.
absl::Status CheckMetadata(const grpc::ServerContext& rpc, size_t max_bytes);

// Tells `resets` of a call that its client took back, before any answer and before its deadline, at
// which clients give up by themselves.
void NoteReset(const CallContext& context, ResetGuard* resets);

// What a call ends with when its deadline has passed, when the server is shutting down, and when it
// is a stream of GrpcOptions::max_connection_age.
absl::Status DeadlinePassed();
absl::Status ShuttingDown();
absl::Status StreamAged();
// What it ends with when its client left `bytes` of answers unread, and what is wrong with an
// answer of so many.
absl::Status AnswersUnread(size_t bytes, size_t limit);
absl::Status FrameTooLarge(size_t bytes, size_t limit);

// Ends a call that has not finished with `why`, past whatever waits for the client to read it. Code
// and message are all that gRPC can send so.
void CancelCall(const absl::Status& why, grpc::ServerContext* rpc);

// Waits for one call of the method; when it comes, waits for the next. `method` must outlive it.
void AwaitUnaryCall(const ServerQueue& host, const RawUnaryMethod* method);
void AwaitStreamCall(const ServerQueue& host, const RawStreamMethod* method);

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_SERVER_CALLS_H_
