// gRPC alone, as the mesh sets it up: a unary call with large messages, and behind it one
// long-lived stream with frames of at most a mebibyte.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_server.h"
#include "expertmesh/internal/v1/expert.grpc.pb.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "tests/bench/baselines/blank_bytes.h"
#include "tests/bench/baselines/target.h"

namespace expertmesh::bench {
namespace {

// Methods of the contract that take any bytes when served raw.
constexpr char kUnary[] = "/expertmesh.v1.Router/Forward";
constexpr char kStream[] = "/expertmesh.internal.v1.Expert/Compute";
constexpr uint32_t kFrameBytes = 1 << 20;

// How a frame between forwarder and echo begins.
struct EchoHeader {
  uint64_t call = 0;
  uint32_t reply_bytes = 0;
  uint32_t unused = 0;
};

class EchoHandler final : public StreamHandler {
 public:
  explicit EchoHandler(std::shared_ptr<FrameSink> replies) : replies_(std::move(replies)) {}
  void OnFrame(Frame frame) override {
    const auto header = ReadHeader<EchoHeader>(frame);
    (void)replies_->Send(BlankFrame(header, header.reply_bytes));
  }

 private:
  const std::shared_ptr<FrameSink> replies_;
};

class Forwarder {
 public:
  explicit Forwarder(const std::string& next) : client_(&runtime_, next, {}) {
    net::CallOptions options;
    options.wait_for_ready = true;
    net::StreamCallbacks callbacks;
    callbacks.on_frame = [this](const Frame& frame) { OnReply(frame); };
    callbacks.on_closed = [](const absl::Status&) {};
    stream_ = client_.OpenStream(kStream, options, std::move(callbacks));
  }

  // For the server that forwards, so that both hops are one thread's work.
  net::GrpcRuntime* runtime() { return &runtime_; }

  void Forward(const Frame& request, net::UnaryResponder respond) {
    const auto sizes = ReadHeader<HopSizes>(request);
    const uint32_t frames = std::max({1u, (sizes.up2 + kFrameBytes - 1) / kFrameBytes,
                                      (sizes.down2 + kFrameBytes - 1) / kFrameBytes});
    EchoHeader header;
    {
      absl::MutexLock lock(&mutex_);
      header.call = next_call_++;
      calls_[header.call] = {frames, sizes.down1, std::move(respond)};
    }
    header.reply_bytes = sizes.down2 / frames;
    for (uint32_t frame = 0; frame < frames; ++frame) {
      (void)stream_->Send(BlankFrame(header, sizes.up2 / frames));
    }
  }

 private:
  struct Call {
    uint32_t replies_missing = 0;
    uint32_t answer_bytes = 0;
    net::UnaryResponder respond;
  };

  void OnReply(const Frame& frame) {
    const auto header = ReadHeader<EchoHeader>(frame);
    Call done;
    {
      absl::MutexLock lock(&mutex_);
      const auto call = calls_.find(header.call);
      if (call == calls_.end() || --call->second.replies_missing > 0) {
        return;
      }
      done = std::move(call->second);
      calls_.erase(call);
    }
    done.respond(BlankFrame(header, done.answer_bytes));
  }

  absl::Mutex mutex_;
  uint64_t next_call_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<uint64_t, Call> calls_ ABSL_GUARDED_BY(mutex_);
  net::GrpcRuntime runtime_;
  net::GrpcClient client_;
  std::shared_ptr<net::ClientStream> stream_;
};

class TwoBareHops final : public Target {
 public:
  explicit TwoBareHops(const std::string& address) : client_(&runtime_, address, {}) {}

  void SetSizes(const HopSizes& sizes) override { sizes_ = sizes; }

  absl::Status Call(size_t, const client::Matrix&) override {
    absl::Notification answered;
    absl::Status status;
    net::CallOptions options;
    options.wait_for_ready = true;
    client_.UnaryCall(kUnary, BlankFrame(sizes_, sizes_.up1), options,
                      [&](const absl::StatusOr<Frame>& answer) {
                        status = answer.status();
                        answered.Notify();
                      });
    answered.WaitForNotification();
    return status;
  }

 private:
  net::GrpcRuntime runtime_;
  net::GrpcClient client_;
  HopSizes sizes_;
};

absl::Status Serve(net::GrpcServerSpec spec, const ServeOptions& options) {
  spec.address = options.listen;
  ASSIGN_OR_RETURN(const std::unique_ptr<net::GrpcServer> server,
                   net::GrpcServer::Start(std::move(spec)));
  RETURN_IF_ERROR(WritePortFile(options.port_file, server->port(), 0));
  WaitForStopSignal();
  server->Shutdown(absl::Seconds(1));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Target>> MakeTwoBareHops(const TargetOptions& options) {
  return std::make_unique<TwoBareHops>(options.addresses.at(0));
}

absl::Status ServeGrpcEcho(const ServeOptions& options) {
  net::GrpcServerSpec spec;
  spec.streams.push_back({kStream, [](std::shared_ptr<FrameSink> replies, const CallContextPtr&) {
                            return std::make_unique<EchoHandler>(std::move(replies));
                          }});
  return Serve(std::move(spec), options);
}

absl::Status ServeGrpcForward(const ServeOptions& options) {
  Forwarder forwarder(options.next);
  net::GrpcServerSpec spec;
  spec.unary.push_back({kUnary, [&forwarder](const Frame& request, const CallContextPtr&,
                                             net::UnaryResponder respond) {
                          forwarder.Forward(request, std::move(respond));
                        }});
  spec.runtime = forwarder.runtime();
  return Serve(std::move(spec), options);
}

}  // namespace expertmesh::bench
