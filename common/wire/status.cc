#include "common/wire/status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace expertmesh {

absl::Status StatusFromPeer(int code, absl::string_view message) {
  const bool known = code >= static_cast<int>(absl::StatusCode::kOk) &&
                     code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  if (!known) {
    return absl::UnknownError(
        absl::StrCat(message, message.empty() ? "" : " ", "(the peer's status code ", code,
                     " is none of google.rpc.Code; its software may be newer or faulty)"));
  }
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

absl::Status FromWire(const v1::Status& status) {
  return StatusFromPeer(status.code(), status.message());
}

v1::Status ToWire(const absl::Status& status) {
  v1::Status message;
  // code(), not raw_code(): a code that this abseil does not know is UNKNOWN.
  message.set_code(static_cast<int>(status.code()));
  message.set_message(std::string(status.message()));
  return message;
}

}  // namespace expertmesh
