#include <grpcpp/impl/codegen/rpc_service_method.h>

#include "common/net/server_calls.h"

namespace expertmesh::net {

RawService::RawService(const std::vector<RawUnaryMethod>& unary,
                       const std::vector<RawStreamMethod>& streams)
    : unary_(unary), streams_(streams) {
  for (const RawUnaryMethod& method : unary_) {
    Add(method.name, grpc::internal::RpcMethod::NORMAL_RPC);
  }
  for (const RawStreamMethod& method : streams_) {
    Add(method.name, grpc::internal::RpcMethod::BIDI_STREAMING);
  }
}

void RawService::Add(const std::string& name, grpc::internal::RpcMethod::RpcType type) {
  AddMethod(new grpc::internal::RpcServiceMethod(name.c_str(), type, /*handler=*/nullptr));
  MarkMethodRaw(methods_++);
}

void RawService::RequestUnary(const RawUnaryMethod* method, grpc::ServerContext* context,
                              grpc::ByteBuffer* request,
                              grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* writer,
                              grpc::ServerCompletionQueue* queue, void* tag) {
  const auto index = static_cast<int>(method - unary_.data());
  RequestAsyncUnary(index, context, request, writer, queue, queue, tag);
}

void RawService::RequestStream(
    const RawStreamMethod* method, grpc::ServerContext* context,
    grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>* stream,
    grpc::ServerCompletionQueue* queue, void* tag) {
  const auto index = static_cast<int>(unary_.size()) + static_cast<int>(method - streams_.data());
  RequestAsyncBidiStreaming(index, context, stream, queue, queue, tag);
}

}  // namespace expertmesh::net
