#include "common/net/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/address.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/connection_counts.h"
#include "common/base/status_macros.h"

namespace expertmesh::net {
namespace {

// After a failure to accept.
constexpr int kPauseMillis = 100;
// Between two looks at whether the network threads come round.
constexpr int kLookMillis = 250;
// Between two looks at which connections are still open.
constexpr absl::Duration kBetweenSweeps = absl::Seconds(1);
// From the first look at a stall on.
constexpr absl::Duration kLongestStall = absl::Milliseconds(700);
constexpr absl::Duration kBetweenWarnings = absl::Seconds(10);
// A free port of one address may be taken at another.
constexpr int kTriesOfPortZero = 16;

size_t DescriptorLimit() {
  rlimit limit = {};
  EXPERTMESH_CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  return static_cast<size_t>(limit.rlim_cur);
}

void SetOption(int descriptor, int level, int name, int value) {
  // What a system does not have is no reason not to serve.
  (void)setsockopt(descriptor, level, name, &value, sizeof(value));
}

int PortOf(int descriptor) {
  sockaddr_storage bound = {};
  socklen_t size = sizeof(bound);
  if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return 0;
  }
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                           : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

// A listening socket, or -1 and errno. Connections inherit its options.
int Listen(const sockaddr* address, socklen_t size, bool dual_stack, absl::Duration user_timeout) {
  const int family = address->sa_family;
  const int made = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (made < 0) {
    return -1;
  }
  if (family != AF_UNIX) {
    SetOption(made, SOL_SOCKET, SO_REUSEADDR, 1);
    SetOption(made, IPPROTO_TCP, TCP_NODELAY, 1);
    SetOption(made, IPPROTO_TCP, TCP_USER_TIMEOUT,
              static_cast<int>(absl::ToInt64Milliseconds(user_timeout)));
  }
  if (family == AF_INET6) {
    SetOption(made, IPPROTO_IPV6, IPV6_V6ONLY, dual_stack ? 0 : 1);
  }
  // The kernel cuts the length of the queue to its own limit.
  if (bind(made, address, size) != 0 || listen(made, std::numeric_limits<int>::max()) != 0) {
    const int reason = errno;
    close(made);
    errno = reason;
    return -1;
  }
  return made;
}

// Addresses that `host` has and this machine does not, such as ::1 without IPv6.
bool IsNotHere(int error) {
  return error == EADDRNOTAVAIL || error == EAFNOSUPPORT || error == EPROTONOSUPPORT;
}

// No connection is lost by waiting: the kernel keeps it in the queue.
bool IsShortage(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

}  // namespace

size_t ReservedDescriptors(size_t limit) {
  return std::min(std::clamp<size_t>(limit / 8, 16, 1024), limit / 2);
}

Listener::Listener(const ListenerOptions& options)
    : options_(options), warnings_(kBetweenWarnings, Clock::Real()) {}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(const ListenerOptions& options) {
  auto listener = std::unique_ptr<Listener>(new Listener(options));
  if (const absl::Status status = listener->BindAddress(); absl::IsUnavailable(status)) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.address, ": ",
                                               status.message(),
                                               "; stop what uses it or choose another address"));
  } else if (!status.ok()) {
    return status;
  }
  return listener;
}

absl::Status Listener::BindAddress() {
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_ < 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  absl::string_view path = options_.address;
  if (absl::ConsumePrefix(&path, "unix:")) {
    absl::ConsumePrefix(&path, "//");  // As a URI.
    return BindUnix(std::string(path));
  }
  ASSIGN_OR_RETURN(const HostPort parts, SplitHostPort(options_.address));
  if (parts.port != "0") {
    return BindHost(parts.host, parts.port);
  }
  absl::Status status;
  for (int i = 0; i < kTriesOfPortZero; ++i) {
    status = BindHost(parts.host, parts.port);
    if (status.ok()) {
      break;
    }
  }
  return status;
}

absl::Status Listener::BindUnix(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("'", options_.address, "' has a path of ",
                                                   path.size(), " bytes; use 1 to ",
                                                   sizeof(address.sun_path) - 1));
  }
  path.copy(address.sun_path, path.size());
  struct stat status = {};
  if (stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) {
    unlink(path.c_str());  // The kernel leaves it behind when its server ends.
  }
  const int made = Listen(reinterpret_cast<const sockaddr*>(&address), sizeof(address),
                          /*dual_stack=*/false, options_.user_timeout);
  if (made < 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  listening_.push_back(made);
  unix_path_ = path;
  return absl::OkStatus();
}

absl::Status Listener::BindHost(const std::string& host, const std::string& port) {
  const bool all = host == "0.0.0.0" || host == "::";
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  // IPv6 stands for both, where there is any.
  const std::vector<const char*> names =
      all ? std::vector<const char*>{"::", "0.0.0.0"} : std::vector<const char*>{host.c_str()};
  int reason = 0;
  for (const char* name : names) {
    addrinfo* found = nullptr;
    if (const int error = getaddrinfo(name, port.c_str(), &hints, &found); error != 0) {
      if (all) {
        continue;
      }
      return absl::UnavailableError(gai_strerror(error));
    }
    reason = 0;
    for (const addrinfo* one = found; one != nullptr && (reason == 0 || IsNotHere(reason));
         one = one->ai_next) {
      if (auto* const v4 = reinterpret_cast<sockaddr_in*>(one->ai_addr); port_ != 0) {
        v4->sin_port = htons(static_cast<uint16_t>(port_));  // In the same place for IPv6.
      }
      const int made = Listen(one->ai_addr, one->ai_addrlen, all, options_.user_timeout);
      if (made < 0) {
        reason = errno;
        continue;
      }
      listening_.push_back(made);
      port_ = PortOf(made);
    }
    freeaddrinfo(found);
    if (all && (!listening_.empty() || !IsNotHere(reason))) {
      break;
    }
  }
  if (!listening_.empty() && (reason == 0 || IsNotHere(reason))) {
    return absl::OkStatus();
  }
  for (const int made : std::exchange(listening_, {})) {
    close(made);
  }
  port_ = 0;
  return absl::UnavailableError(reason != 0 ? std::strerror(reason) : "it has no address");
}

Listener::~Listener() {
  Stop();
  if (wake_ >= 0) {
    close(wake_);
  }
}

void Listener::Start(Accept accept) {
  EXPERTMESH_CHECK(!thread_.joinable());
  accept_ = std::move(accept);
  thread_ = std::thread([this] { Run(); });
}

void Listener::Stop() {
  if (thread_.joinable()) {
    stopping_ = true;
    EXPERTMESH_CHECK(eventfd_write(wake_, 1) == 0);
    thread_.join();
  }
  for (const int listening : std::exchange(listening_, {})) {
    close(listening);
  }
  if (!unix_path_.empty()) {
    unlink(std::exchange(unix_path_, "").c_str());
  }
}

void Listener::Run() {
  std::vector<pollfd> waiting = {{wake_, POLLIN, 0}};
  for (const int listening : listening_) {
    waiting.push_back({listening, POLLIN, 0});
  }
  bool paused = false;
  absl::Time swept = Clock::Real()->Now();
  while (true) {
    // What waits keeps its socket readable, so that during a pause only the end is waited for.
    if (poll(waiting.data(), paused ? 1 : waiting.size(), paused ? kPauseMillis : kLookMillis) <
        0) {
      EXPERTMESH_CHECK(errno == EINTR || errno == ENOMEM);
      continue;
    }
    if (waiting[0].revents != 0) {
      return;
    }
    bool accepted_all = true;
    for (size_t i = 1; i < waiting.size(); ++i) {
      if (paused || waiting[i].revents != 0) {
        accepted_all = AcceptFrom(waiting[i].fd) && accepted_all;
      }
    }
    paused = !accepted_all;
    CheckStall();
    if (const absl::Time now = Clock::Real()->Now(); now - swept >= kBetweenSweeps) {
      connections_.Sweep();
      swept = now;
    }
  }
}

bool Listener::AcceptFrom(int listening) {
  while (!stopping_) {  // However many come.
    sockaddr_storage peer = {};
    socklen_t size = sizeof(peer);
    const int made =
        accept4(listening, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (made >= 0) {
      Take(listening, made, peer);
    } else if (errno == EAGAIN) {
      return true;
    } else if (IsShortage(errno)) {
      ++connection_counts.accept_failures;
      Warn("cannot accept connections", std::strerror(errno));
      return false;
    }
    // Else that one connection was in error, and is gone.
  }
  return true;
}

void Listener::Take(int listening, int connection, const sockaddr_storage& peer) {
  const size_t limit = DescriptorLimit();
  const size_t reserved = ReservedDescriptors(limit);
  // The kernel gives the lowest number that is free, so such a high one means that few are.
  if (static_cast<size_t>(connection) >= limit - reserved) {
    ++connection_counts.refused_for_descriptors;
    close(connection);
    Warn("refuses connections",
         absl::StrCat("of ", limit, " descriptors only ", reserved,
                      " are left; raise the limit (ulimit -n) or have fewer connections"));
    return;
  }
  if (connections_.size() >= options_.max_connections &&
      connections_.Sweep() >= options_.max_connections) {
    ++connection_counts.refused_for_number;
    close(connection);
    Warn("refuses connections", absl::StrCat("there are ", options_.max_connections,
                                             ", as many as --max-connections allows"));
    return;
  }
  connections_.Add(connection, peer);
  accept_(listening, connection);
}

// gRPC reads from a connection until there is nothing left to read. So a client that sends more
// quickly than it is read, without waiting for answers, occupies the thread.
void Listener::CheckStall() {
  const std::optional<Stall> stall = options_.stall == nullptr ? std::nullopt : options_.stall();
  const absl::Time now = Clock::Real()->Now();
  if (!stall.has_value() || !stall_.has_value() || stall->id != stall_->id) {
    stall_ = stall;
    stall_seen_ = now;
    if (stall.has_value()) {
      connections_.MarkReads();
    }
    return;
  }
  const absl::Duration lasted = now - stall_seen_;
  if (lasted < kLongestStall) {
    return;
  }
  // A thread that did not run has read from none.
  if (stall->cpu - stall_->cpu >= lasted / 2) {
    if (const std::string peer = connections_.EndBusiest(); !peer.empty()) {
      ++connection_counts.ended_for_stalls;
      spdlog::warn(
          "{} sent more, and sooner, than can be read, so that no other was served for {}: "
          "its connection is ended",
          peer, absl::FormatDuration(lasted));
    }
  }
  stall_ = std::nullopt;
}

void Listener::Warn(absl::string_view what, absl::string_view why) {
  if (const std::optional<uint64_t> left_out = warnings_.Take()) {
    spdlog::warn("{}",
                 absl::StrCat(options_.address, " ", what, ": ", why, LeftOutText(*left_out)));
  }
}

}  // namespace expertmesh::net
