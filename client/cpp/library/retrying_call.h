// A unary call that is made again while that may help.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_RETRYING_CALL_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_RETRYING_CALL_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/cpp/library/retry.h"
#include "common/net/grpc_client.h"
#include "common/wire/frame.h"

namespace expertmesh::client {

class RetryingCall : public std::enable_shared_from_this<RetryingCall> {
 public:
  // Must outlive the call.
  struct Means {
    net::GrpcClient* client = nullptr;
    RetryPolicy* retries = nullptr;
    RetryTimers* waits = nullptr;
    Repetition repetition = Repetition::kHarmless;
  };

  // `done` runs exactly once, as that of GrpcClient::UnaryCall. No attempt begins after the
  // deadline of `options`.
  static void Start(const Means& means, const std::string& method, const Frame& request,
                    const net::CallOptions& options,
                    std::function<void(absl::StatusOr<Frame>)> done);

 private:
  RetryingCall() = default;

  void Attempt();
  void OnAnswer(absl::StatusOr<Frame> answer);

  Means means_;
  std::string method_;
  Frame request_;
  net::CallOptions options_;
  std::function<void(absl::StatusOr<Frame>)> done_;
  uint32_t attempts_ = 0;
};

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_RETRYING_CALL_H_
