// Server-streaming calls that tell a state again and again, made again when they break.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_WATCH_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_WATCH_H_

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/library/client_impl.h"
#include "client/cpp/library/retry.h"
#include "common/net/grpc_client.h"
#include "common/wire/frame.h"

namespace expertmesh::client {

// What a watch needs; all outlive it.
struct WatchMeans {
  net::GrpcClient* client;
  RetryPolicy* retries;
};

// Calls `method`, and calls it again while that may help. `on_frame` gets each message, on this
// thread: true to go on, false when it has seen enough, or an error, which ends the watch.
absl::Status WatchFrames(const WatchMeans& means, const std::string& method,
                         const std::function<absl::StatusOr<bool>(const Frame&)>& on_frame);

// The same in the contract's messages, without those that tell nothing new. `clear_ages` empties
// what changes while nothing happens. `on_news` returns false when it has seen enough.
template <typename Response>
absl::Status Watch(const WatchMeans& means, const std::string& method,
                   const std::function<void(Response*)>& clear_ages,
                   const std::function<bool(const Response&)>& on_news) {
  std::string last;
  return WatchFrames(means, method, [&](const Frame& frame) -> absl::StatusOr<bool> {
    const absl::StatusOr<Response> response = Parse<Response>(frame);
    if (!response.ok()) {
      return response.status();
    }
    Response news = *response;
    clear_ages(&news);
    std::string bytes = news.SerializeAsString();
    if (bytes == last) {
      return true;  // A heartbeat.
    }
    last = std::move(bytes);
    return on_news(*response);
  });
}

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_WATCH_H_
