#include "common/wire/status.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "common/base/peer_text.h"

namespace expertmesh {

namespace {

// More than any process of the mesh sends.
constexpr int kMostDetails = 16;
constexpr size_t kMostDetailBytes = 8192;
constexpr size_t kMostTypeUrlBytes = 256;

}  // namespace

absl::Status StatusFromPeer(int code, absl::string_view text) {
  const std::string message = PeerText(text);
  const bool known = code >= static_cast<int>(absl::StatusCode::kOk) &&
                     code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  if (!known) {
    return absl::UnknownError(
        absl::StrCat(message, message.empty() ? "" : " ", "(the peer's status code ", code,
                     " is none of google.rpc.Code; its software may be newer or faulty)"));
  }
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

absl::Status FromWire(const v1::RequestStatus& status) {
  absl::Status result = StatusFromPeer(status.code(), status.message());
  const int details = std::min(status.details_size(), kMostDetails);
  for (int i = 0; i < details; ++i) {
    const google::protobuf::Any& detail = status.details(i);
    if (detail.value().size() <= kMostDetailBytes &&
        PeerText(detail.type_url(), kMostTypeUrlBytes) == detail.type_url()) {
      result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
    }
  }
  return result;
}

v1::RequestStatus ToWire(const absl::Status& status) {
  v1::RequestStatus message;
  // code(), not raw_code(): a code that this abseil does not know is UNKNOWN.
  message.set_code(static_cast<int>(status.code()));
  message.set_message(std::string(status.message()));
  // Abseil visits payloads in any order.
  std::map<std::string, std::string> details;
  status.ForEachPayload([&details](absl::string_view type_url, const absl::Cord& value) {
    details[std::string(type_url)] = std::string(value);
  });
  for (auto& [type_url, value] : details) {
    google::protobuf::Any& detail = *message.add_details();
    detail.set_type_url(type_url);
    detail.set_value(std::move(value));
  }
  return message;
}

}  // namespace expertmesh
