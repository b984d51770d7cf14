#include "common/net/grpc_status.h"

#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh::net {
namespace {

// A byte may take three when escaped; 2 KiB leaves room for other trailers.
constexpr size_t kMaxTrailerMessage = 2048;

absl::StatusCode CodeOf(int code) {
  const bool known = code >= static_cast<int>(absl::StatusCode::kOk) &&
                     code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown;
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(CodeOf(status.error_code()), status.error_message());
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

absl::Status FromProto(const v1::Status& status) {
  return absl::Status(CodeOf(status.code()), status.message());
}

v1::Status ToProto(const absl::Status& status) {
  v1::Status proto;
  proto.set_code(static_cast<int>(status.code()));
  if (!status.ok()) {
    proto.set_message(std::string(status.message()));
  }
  return proto;
}

}  // namespace expertmesh::net
