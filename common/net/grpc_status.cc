#include "common/net/grpc_status.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "common/base/peer_text.h"
#include "common/wire/error_reason.h"
#include "common/wire/status.h"

namespace expertmesh::net {
namespace {

// All trailers together may have 8 KiB. A byte of the message may take three when escaped; the
// details repeat it, and take four bytes for three.
constexpr size_t kMaxTrailerMessage = 1024;
constexpr size_t kMaxTrailerDetails = 3072;

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  v1::RequestStatus
      details;  // The bytes are a google.rpc.Status; what it repeats is not looked at.
  if (!status.error_details().empty() && details.ParseFromString(status.error_details())) {
    details.set_code(status.error_code());
    details.set_message(status.error_message());
    return FromWire(details);
  }
  if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
      absl::StrContains(status.error_message(), "larger than max")) {
    // gRPC's own refusal, which has no details.
    return ErrorOf(v1::ERROR_REASON_MESSAGE_TOO_LARGE, PeerText(status.error_message()));
  }
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
    message.resize(CutText(message, kMaxTrailerMessage).size());
    message += "...";
  }
  v1::RequestStatus details = ToWire(status);
  details.set_message(message);
  std::string bytes = details.SerializeAsString();
  return details.details().empty() || bytes.size() > kMaxTrailerDetails
             ? grpc::Status(code, message)
             : grpc::Status(code, message, bytes);
}

}  // namespace expertmesh::net
