// Sockets alone: a connection for each caller, and another for it behind the forwarder.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/message_bytes.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "tests/bench/baselines/blank_bytes.h"
#include "tests/bench/baselines/target.h"

namespace expertmesh::bench {
namespace {

struct EchoSizes {
  uint32_t up = 0;
  uint32_t down = 0;
};

absl::StatusOr<sockaddr_in> Parse(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in parsed = {};
  parsed.sin_family = AF_INET;
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &parsed.sin_addr) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(address, " is not IPv4:port"));
  }
  parsed.sin_port = htons(static_cast<uint16_t>(port));
  return parsed;
}

// One end of a connection. Blocking.
class Socket {
 public:
  explicit Socket(int file) : file_(file) {
    const int yes = 1;
    setsockopt(file_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  }
  ~Socket() { close(file_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  static absl::StatusOr<std::unique_ptr<Socket>> Connect(const std::string& address) {
    ASSIGN_OR_RETURN(const sockaddr_in parsed, Parse(address));
    const int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto made = std::make_unique<Socket>(file);
    if (connect(file, reinterpret_cast<const sockaddr*>(&parsed), sizeof(parsed)) != 0) {
      return absl::UnavailableError(absl::StrCat("cannot connect to ", address));
    }
    return made;
  }

  // `header` and blank bytes, `size` in all. False when the connection is gone.
  template <typename Header>
  bool Send(const Header& header, size_t size) {
    message_bytes.sent.fetch_add(size, std::memory_order_relaxed);
    return SendAll(&header, sizeof(header), size > sizeof(header) ? MSG_MORE : 0) &&
           SendAll(BlankBytes()->data(), size - sizeof(header), 0);
  }

  template <typename Header>
  bool ReceiveHeader(Header* header) {
    return Receive(header, sizeof(*header), MSG_WAITALL) == sizeof(*header);
  }

  bool Skip(size_t size) {
    scratch_.resize(std::max(scratch_.size(), size));
    return size == 0 || Receive(scratch_.data(), size, MSG_WAITALL) == size;
  }

 private:
  size_t Receive(void* data, size_t size, int flags) {
    size_t done = 0;
    while (done < size) {
      const ssize_t got = recv(file_, static_cast<char*>(data) + done, size - done, flags);
      if (got <= 0) {
        break;
      }
      done += static_cast<size_t>(got);
    }
    message_bytes.received.fetch_add(done, std::memory_order_relaxed);
    return done;
  }

  bool SendAll(const void* data, size_t size, int flags) {
    size_t done = 0;
    while (done < size) {
      const ssize_t sent = send(file_, static_cast<const char*>(data) + done, size - done, flags);
      if (sent <= 0) {
        return false;
      }
      done += static_cast<size_t>(sent);
    }
    return true;
  }

  const int file_;
  std::vector<char> scratch_;
};

class RawTcp final : public Target {
 public:
  explicit RawTcp(std::string address) : address_(std::move(address)) {}

  void SetSizes(const HopSizes& sizes) override { sizes_ = sizes; }

  absl::Status Call(size_t caller, const client::Matrix&) override {
    ASSIGN_OR_RETURN(Socket * socket, SocketOf(caller));
    if (!socket->Send(sizes_, sizes_.up1) || !socket->Skip(sizes_.down1)) {
      return absl::UnavailableError("the connection broke");
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<Socket*> SocketOf(size_t caller) {
    absl::MutexLock lock(&mutex_);
    std::unique_ptr<Socket>& socket = sockets_[caller];
    if (socket == nullptr) {
      ASSIGN_OR_RETURN(socket, Socket::Connect(address_));
    }
    return socket.get();
  }

  const std::string address_;
  HopSizes sizes_;
  absl::Mutex mutex_;
  std::map<size_t, std::unique_ptr<Socket>> sockets_ ABSL_GUARDED_BY(mutex_);
};

void Echo(Socket* caller) {
  EchoSizes sizes;
  while (caller->ReceiveHeader(&sizes) && caller->Skip(sizes.up - sizeof(sizes)) &&
         caller->Send(sizes, sizes.down)) {
  }
}

void Forward(Socket* caller, const std::string& next) {
  const auto echo = Socket::Connect(next);
  HopSizes sizes;
  while (echo.ok() && caller->ReceiveHeader(&sizes) && caller->Skip(sizes.up1 - sizeof(sizes)) &&
         (*echo)->Send(EchoSizes{sizes.up2, sizes.down2}, sizes.up2) &&
         (*echo)->Skip(sizes.down2) && caller->Send(sizes, sizes.down1)) {
  }
}

// A thread for each connection, until the process ends.
absl::Status Serve(const ServeOptions& options, const std::function<void(Socket*)>& serve) {
  ASSIGN_OR_RETURN(sockaddr_in address, Parse(options.listen));
  const int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t size = sizeof(address);
  if (bind(file, reinterpret_cast<const sockaddr*>(&address), size) != 0 || listen(file, 64) != 0 ||
      getsockname(file, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen));
  }
  std::thread([file, serve] {
    while (true) {
      const int accepted = accept4(file, nullptr, nullptr, SOCK_CLOEXEC);
      if (accepted >= 0) {
        std::thread([accepted, serve] {
          Socket socket(accepted);
          serve(&socket);
        }).detach();
      }
    }
  }).detach();
  RETURN_IF_ERROR(WritePortFile(options.port_file, ntohs(address.sin_port), 0));
  WaitForStopSignal();
  _exit(0);  // Its threads block in the kernel.
}

}  // namespace

absl::StatusOr<std::unique_ptr<Target>> MakeRawTcp(const TargetOptions& options) {
  return std::make_unique<RawTcp>(options.addresses.at(0));
}

absl::Status ServeTcpEcho(const ServeOptions& options) { return Serve(options, &Echo); }

absl::Status ServeTcpForward(const ServeOptions& options) {
  return Serve(options, [next = options.next](Socket* caller) { Forward(caller, next); });
}

}  // namespace expertmesh::bench
