// What the sources of Client share.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_CLIENT_IMPL_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_CLIENT_IMPL_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/expertmesh/client.h"
#include "client/cpp/library/retry.h"
#include "common/base/timer_queue.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_runtime.h"
#include "common/wire/frame.h"

namespace expertmesh::client {

template <typename Message>
absl::StatusOr<Message> Parse(const Frame& frame) {
  Message message;
  if (!message.ParseFromString(frame.Flatten())) {
    return absl::InternalError(
        absl::StrCat("the answer is no ", Message::descriptor()->full_name()));
  }
  return message;
}

struct Client::Impl {
  Impl(const std::string& target, const ClientOptions& client_options);

  // Waits for the answer to a request about the router, at most ClientOptions::describe_timeout;
  // asks again where that may help.
  absl::StatusOr<Frame> AskInFrames(const char* method, const Frame& request,
                                    Repetition repetition = Repetition::kHarmless);

  // The same in the contract's messages.
  template <typename Response, typename Request>
  absl::StatusOr<Response> Ask(const char* method, const Request& request,
                               Repetition repetition = Repetition::kHarmless) {
    const absl::StatusOr<Frame> answer =
        AskInFrames(method, Frame(request.SerializeAsString()), repetition);
    if (!answer.ok()) {
      return answer.status();
    }
    return Parse<Response>(*answer);
  }

  const std::string address;
  const ClientOptions options;
  RetryPolicy retries;
  // Gone after `runtime`, whose end answers the requests that have timers.
  TimerQueue timers;
  // Closed by the client's end before `runtime` goes.
  RetryTimers waits;
  net::GrpcRuntime runtime;
  // Two connections, so that tensors do not hold up small messages.
  net::GrpcClient data;
  net::GrpcClient control;
};

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_CLIENT_IMPL_H_
