#include "router_service/mesh/dns_nodes.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/address.h"
#include "common/base/status_macros.h"

namespace expertmesh::mesh {
namespace {

constexpr absl::string_view kDnsScheme = "dns:///";

}  // namespace

absl::StatusOr<std::vector<std::string>> SystemLookup(const std::string& host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot resolve ", host, ": ", gai_strerror(error), "; check the name"));
  }
  std::vector<std::string> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof(text), nullptr, 0,
                    NI_NUMERICHOST) == 0) {
      addresses.emplace_back(text);
    }
  }
  freeaddrinfo(found);
  return addresses;
}

absl::StatusOr<std::vector<std::string>> ResolveAddresses(absl::string_view spec,
                                                          const HostLookup& lookup) {
  std::vector<std::string> addresses;
  for (absl::string_view entry : absl::StrSplit(spec, ',')) {
    entry = absl::StripAsciiWhitespace(entry);
    const bool by_name = absl::ConsumePrefix(&entry, kDnsScheme);
    RETURN_IF_ERROR(CheckAddress(entry));
    if (!by_name) {
      addresses.emplace_back(entry);
      continue;
    }
    ASSIGN_OR_RETURN(const HostPort parts, SplitHostPort(entry));
    ASSIGN_OR_RETURN(const std::vector<std::string> hosts, lookup(parts.host));
    for (const std::string& host : hosts) {
      addresses.push_back(JoinHostPort(host, parts.port));
    }
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

bool HasNames(absl::string_view spec) { return absl::StrContains(spec, kDnsScheme); }

DnsNodes::DnsNodes(std::string spec, NodeSourceOptions options, OnChange on_change,
                   OnStatus on_status)
    : spec_(std::move(spec)),
      options_(std::move(options)),
      on_change_(std::move(on_change)),
      on_status_(std::move(on_status)),
      thread_([this] { Run(); }) {}

DnsNodes::~DnsNodes() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void DnsNodes::Run() {
  std::optional<std::vector<std::string>> current;
  absl::Status status;
  for (;;) {
    absl::StatusOr<std::vector<std::string>> found = ResolveAddresses(spec_, options_.lookup);
    if (found.status() != status) {
      status = found.status();
      on_status_(status);
    }
    if (found.ok() && current != *found) {
      current = *std::move(found);
      on_change_(*current);
    }
    absl::MutexLock lock(&mutex_);
    const absl::Time next = options_.clock->Now() + options_.interval;
    while (!stopping_ && !options_.clock->WaitUntil(&mutex_, &changed_, next)) {
    }
    if (stopping_) {
      return;
    }
  }
}

}  // namespace expertmesh::mesh
