#include "common/base/address.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"

namespace expertmesh {
namespace {

absl::Status Nonsense(absl::string_view address, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("address \"", address, "\" ", why, "; write host:port"));
}

}  // namespace

absl::StatusOr<HostPort> SplitHostPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) {
    return Nonsense(address, "has no port");
  }
  absl::string_view host = address.substr(0, colon);
  const absl::string_view port = address.substr(colon + 1);
  if (absl::ConsumePrefix(&host, "[")) {
    if (!absl::ConsumeSuffix(&host, "]")) {
      return Nonsense(address, "has no closing bracket");
    }
  } else if (absl::StrContains(host, ":")) {
    return Nonsense(address, "has several colons (IPv6 goes in brackets)");
  }
  if (host.empty() || host.find_first_of(" \t/,[]") != absl::string_view::npos) {
    return Nonsense(address, "has no valid host");
  }
  int number = -1;
  const bool digits = port.find_first_not_of("0123456789") == absl::string_view::npos;
  if (!digits || !absl::SimpleAtoi(port, &number) || number > 65535) {
    return Nonsense(address, "has no valid port");
  }
  return HostPort{std::string(host), std::string(port)};
}

std::string JoinHostPort(absl::string_view host, absl::string_view port) {
  if (absl::StrContains(host, ":")) {
    return absl::StrCat("[", host, "]:", port);
  }
  return absl::StrCat(host, ":", port);
}

absl::Status CheckAddress(absl::string_view address) {
  absl::string_view path = address;
  if (absl::ConsumePrefix(&path, "unix:")) {
    return path.empty() ? Nonsense(address, "has no path") : absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const HostPort parts, SplitHostPort(address));
  int number = 0;
  if (!absl::SimpleAtoi(parts.port, &number) || number == 0) {
    return Nonsense(address,
                    "has port 0, to which no client can connect; give a port from 1 to 65535");
  }
  return absl::OkStatus();
}

}  // namespace expertmesh
