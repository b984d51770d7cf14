#include "common/net/grpc_status.h"

#include <string>

#include "common/wire/status.h"

namespace expertmesh::net {
namespace {

// A byte may take three when escaped; 2 KiB leaves room for other trailers.
constexpr size_t kMaxTrailerMessage = 2048;

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  return StatusFromPeer(status.error_code(), status.error_message());
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  // code(), not raw_code(): a code that this abseil does not know is UNKNOWN.
  const auto code = static_cast<grpc::StatusCode>(status.code());
  std::string message(status.message());
  if (message.size() > kMaxTrailerMessage) {
    message.resize(kMaxTrailerMessage);
    message += "...";
  }
  return grpc::Status(code, message);
}

}  // namespace expertmesh::net
