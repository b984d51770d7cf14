// Inside of grpc_server: one call of a raw method that streams.
#ifndef EXPERTMESH_COMMON_NET_SERVER_STREAM_CALL_H_
#define EXPERTMESH_COMMON_NET_SERVER_STREAM_CALL_H_

#include <grpcpp/impl/codegen/async_stream.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/net/grpc_runtime.h"
#include "common/net/grpc_server.h"
#include "common/net/handler_slot.h"
#include "common/net/send_queue.h"
#include "common/net/server_calls.h"
#include "common/net/stream_timers.h"
#include "common/net/stream_window.h"
#include "common/wire/frame.h"

namespace expertmesh::net {

// Life of a stream. Reading and sending go on side by side:
//   reading  until the client closes its side, the stream breaks or the server drains; then the
//            handler is destroyed. Rests while the window is full.
//   sending  one operation at a time, chosen by Advance(): initial metadata, frames of the queue,
//            and at last Finish, when the handler is gone and the last sink too, or the stream is
//            broken.
// `pending_` counts operations (and calls into gRPC) under way; at none after Finish all is over.
class StreamCall final : public LiveCall, public std::enable_shared_from_this<StreamCall> {
 public:
  StreamCall(const ServerQueue& host, const RawStreamMethod* method)
      : host_(host),
        method_(method),
        rpc_(std::make_unique<Rpc>()),
        timers_(host.deadlines),
        window_(host.budget, host.send_queue_bytes, method->answers_each) {}

  void Await();
  void Abort(const absl::Status& why) override { Break(why, /*cancel=*/true); }
  void Drain(const absl::Status& why) override;
  absl::Status Send(Frame frame);
  void SendLatest(ServerStreamSink::LatestFrame make);
  void OnEnding(ServerStreamSink::EndingCallback callback);

  std::string peer() const override {
    absl::MutexLock lock(&mutex_);
    return accepted_ ? context_->peer() : "";
  }

  bool IsGone() const {
    absl::MutexLock lock(&mutex_);
    return broken_ || finishing_;
  }

  bool IsEnding() const {
    absl::MutexLock lock(&mutex_);
    return broken_ || finishing_ || !outcome_.ok();
  }

  void SinkReleased();

 private:
  // Gone when the call is over, even if someone keeps the sink.
  struct Rpc {
    grpc::ServerContext context;
    grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream{&context};
    grpc::ByteBuffer received;
  };

  class Sink final : public ServerStreamSink {
   public:
    explicit Sink(std::shared_ptr<StreamCall> call) : call_(std::move(call)) {}
    ~Sink() override { call_->SinkReleased(); }
    absl::Status Send(Frame frame) override { return call_->Send(std::move(frame)); }
    bool IsGone() const override { return call_->IsGone(); }
    void SendLatest(LatestFrame make) override { call_->SendLatest(std::move(make)); }
    void OnEnding(EndingCallback callback) override { call_->OnEnding(std::move(callback)); }
    void Fail(const absl::Status& why) override { call_->Drain(why); }
    bool IsEnding() const override { return call_->IsEnding(); }

   private:
    const std::shared_ptr<StreamCall> call_;
  };

  void OnRequested(bool ok);
  void Read() { rpc_->stream.Read(&rpc_->received, read_tag_.Arm(shared_from_this())); }

  void StartTimers();

  bool answered() const {
    absl::MutexLock lock(&mutex_);
    return written_ > 1;  // The metadata that the stream begins with is the first.
  }

  // Perhaps for ever, when the client does not read.
  bool IsSending() const {
    absl::MutexLock lock(&mutex_);
    return sending_;
  }

  void StartHandler();
  // Destroys the handler, or lets the frame that it is working on do so. Tells when the stream
  // ends.
  void EndHandler();

  void OnRead(bool ok);

  // True when the caller has to Read(), which counts as under way already.
  bool EndRest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // From when something is queued that the client may never read.
  void WatchReader() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // `written` frames had been when the time began.
  void CheckReader(uint64_t written);

  void OnWritten(bool ok);
  void OnDone(bool);
  void OnFinished(bool);

  // No answer can be sent any more.
  void Break(const absl::Status& why, bool cancel);

  void OperationDone();

  // Starts the next sending operation if there is one and none is under way.
  void Advance();

  const ServerQueue host_;
  const RawStreamMethod* const method_;
  // Operations run outside of mutex_; gRPC orders them. Replaced by null when none is left.
  std::unique_ptr<Rpc> rpc_;
  // Constant once accepted_.
  std::shared_ptr<CallContext> context_;
  absl::Time arrival_;  // Where calls are counted.
  OpTag<StreamCall> request_tag_{&StreamCall::OnRequested};
  OpTag<StreamCall> done_tag_{&StreamCall::OnDone};
  OpTag<StreamCall> read_tag_{&StreamCall::OnRead};
  OpTag<StreamCall> write_tag_{&StreamCall::OnWritten};
  OpTag<StreamCall> finish_tag_{&StreamCall::OnFinished};

  mutable absl::Mutex mutex_;
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;
  HandlerSlot handler_ ABSL_GUARDED_BY(mutex_);
  bool sink_released_ ABSL_GUARDED_BY(mutex_) = false;
  StreamTimers timers_ ABSL_GUARDED_BY(mutex_);
  SendQueue queue_ ABSL_GUARDED_BY(mutex_);
  StreamWindow window_ ABSL_GUARDED_BY(mutex_);
  bool resting_ ABSL_GUARDED_BY(mutex_) = false;  // No read is under way; the next one may begin.
  uint64_t written_ ABSL_GUARDED_BY(mutex_) = 0;  // Frames.
  ServerStreamSink::EndingCallback on_ending_ ABSL_GUARDED_BY(mutex_);
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;  // A sending operation other than Finish.
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
  int pending_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_SERVER_STREAM_CALL_H_
