#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ring_queue.h"
#include "common/net/byte_buffer.h"
#include "common/net/grpc_status.h"
#include "common/net/send_queue.h"
#include "common/net/server_calls.h"
#include "common/wire/error_reason.h"

namespace expertmesh::net {
namespace {

// Life of a stream. Reading and sending go on side by side:
//   reading  until the client closes its side, the stream breaks or the server drains; then the
//            handler is destroyed.
//   sending  one operation at a time, chosen by Advance(): initial metadata, frames of the queue,
//            and at last Finish, when the handler is gone and the last sink too, or the stream is
//            broken.
// `pending_` counts operations (and calls into gRPC) under way; at none after Finish all is over.
class StreamCall final : public LiveCall, public std::enable_shared_from_this<StreamCall> {
 public:
  StreamCall(const ServerQueue& host, const RawStreamMethod* method)
      : host_(host), method_(method), rpc_(std::make_unique<Rpc>()) {}

  void Await() {
    if (!host_.calls->Add(shared_from_this())) {
      return;
    }
    rpc_->context.AsyncNotifyWhenDone(done_tag_.Arm(shared_from_this()));
    host_.service->RequestStream(method_, &rpc_->context, &rpc_->stream, host_.queue,
                                 request_tag_.Arm(shared_from_this()));
  }

  void Abort(const absl::Status& why) override { Break(why, /*cancel=*/true); }

  void Drain(const absl::Status& why) override {
    {
      absl::MutexLock lock(&mutex_);
      if (!accepted_) {
        return;
      }
      if (outcome_.ok()) {
        outcome_ = why;
      }
    }
    EndHandler();
    Advance();
  }

  absl::Status Send(Frame frame) {
    if (frame.size() > host_.max_message_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("the frame has ", frame.size(),
                                                     " bytes, the limit is ",
                                                     host_.max_message_bytes, "; send less"));
    }
    bool full = false;
    {
      absl::MutexLock lock(&mutex_);
      if (broken_ || finishing_) {
        return absl::UnavailableError("the stream is gone, so this answer cannot be sent");
      }
      full = queue_.bytes() >= host_.send_queue_bytes;
      if (!full) {
        queue_.Push(std::move(frame));
      }
    }
    if (full) {
      const absl::Status why = ErrorOf(
          v1::ERROR_REASON_ANSWERS_UNREAD,
          absl::StrCat("the client has left ", host_.send_queue_bytes,
                       " bytes of answers unread; read faster or have fewer requests in flight"),
          {{"limit", absl::StrCat(host_.send_queue_bytes)}});
      Break(why, /*cancel=*/true);
      return why;
    }
    Advance();
    return absl::OkStatus();
  }

  void SendLatest(ServerStreamSink::LatestFrame make) {
    {
      absl::MutexLock lock(&mutex_);
      if (!broken_ && !finishing_) {
        queue_.SetLatest(std::move(make));
      }
    }
    Advance();
  }

  void OnEnding(ServerStreamSink::EndingCallback callback) {
    {
      absl::MutexLock lock(&mutex_);
      on_ending_ = std::move(callback);
    }
    if (IsEnding()) {
      EndHandler();  // Once more, for the callback.
    }
  }

  bool IsGone() const {
    absl::MutexLock lock(&mutex_);
    return broken_ || finishing_;
  }

  bool IsEnding() const {
    absl::MutexLock lock(&mutex_);
    return broken_ || finishing_ || !outcome_.ok();
  }

  void SinkReleased() {
    {
      absl::MutexLock lock(&mutex_);
      sink_released_ = true;
    }
    Advance();
  }

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

  void OnRequested(bool ok) {
    if (!ok) {  // The server is shutting down; there was no call.
      done_tag_.Disarm();
      host_.calls->Remove(this);
      return;
    }
    context_ = MakeCallContext(rpc_->context);
    {
      absl::MutexLock lock(&mutex_);
      accepted_ = true;
      pending_ = 3;  // done_tag_, and the first of read_tag_ and write_tag_.
      sending_ = true;
    }
    AwaitStreamCall(host_, method_);
    absl::Status refusal = CheckMetadata(rpc_->context, host_.max_metadata_bytes);
    // Asked after accepted_ is set: who stops the server later than this finds an accepted call.
    if (host_.calls->stopped()) {
      refusal = ShuttingDown();
    }
    if (!refusal.ok()) {
      SinkReleased();
      Drain(refusal);
    } else {
      StartTimers();
      StartHandler();
    }
    // After the handler is there: that is what an open stream means to the client.
    rpc_->stream.SendInitialMetadata(write_tag_.Arm(shared_from_this()));
    rpc_->stream.Read(&rpc_->received, read_tag_.Arm(shared_from_this()));
  }

  void StartTimers() {
    absl::MutexLock lock(&mutex_);
    if (context_->deadline() != absl::InfiniteFuture()) {
      timer_ = host_.deadlines->Schedule(context_->deadline(), [call = shared_from_this()] {
        call->Break(DeadlinePassed(), /*cancel=*/call->IsSending());
      });
    }
    if (method_->ages && host_.max_stream_age != absl::InfiniteDuration()) {
      // Streams that were opened together do not come back together.
      const double jitter = absl::Uniform(absl::BitGen(), 0.9, 1.1);
      age_timer_ = host_.deadlines->Schedule(Clock::Real()->Now() + jitter * host_.max_stream_age,
                                             [weak = weak_from_this()] {
                                               if (const auto call = weak.lock()) {
                                                 call->Drain(StreamAged());
                                               }
                                             });
    }
  }

  // Perhaps for ever, when the client does not read.
  bool IsSending() const {
    absl::MutexLock lock(&mutex_);
    return sending_;
  }

  void StartHandler() {
    std::unique_ptr<StreamHandler> handler =
        method_->factory(std::make_shared<Sink>(shared_from_this()), context_);
    EXPERTMESH_CHECK(handler != nullptr);
    absl::MutexLock lock(&mutex_);
    if (!handler_over_) {
      handler_.swap(handler);
    }
  }

  // Destroys the handler, or lets the frame that it is working on do so. Tells when the stream
  // ends.
  void EndHandler() {
    std::unique_ptr<StreamHandler> dying;
    ServerStreamSink::EndingCallback ending;
    {
      absl::MutexLock lock(&mutex_);
      handler_over_ = true;
      if (!in_handler_) {
        dying = std::move(handler_);
      }
      if (broken_ || !outcome_.ok()) {
        ending = std::exchange(on_ending_, nullptr);
      }
    }
    if (ending != nullptr) {
      ending();
    }
  }

  void OnRead(bool ok) {
    if (!ok) {
      EndHandler();
      OperationDone();
      return;
    }
    StreamHandler* handler = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      handler = handler_over_ ? nullptr : handler_.get();
      in_handler_ = handler != nullptr;
    }
    Frame frame = TakeFrame(&rpc_->received);
    if (handler != nullptr) {
      handler->OnFrame(std::move(frame));
      std::unique_ptr<StreamHandler> dying;  // Destroyed after the lock is gone.
      absl::MutexLock lock(&mutex_);
      in_handler_ = false;
      if (handler_over_) {
        dying = std::move(handler_);
      }
    }
    rpc_->stream.Read(&rpc_->received, read_tag_.Arm(shared_from_this()));
  }

  void OnWritten(bool ok) {
    {
      absl::MutexLock lock(&mutex_);
      sending_ = false;
      queue_.Written();
    }
    if (!ok) {
      Break(absl::UnavailableError("the stream broke"), /*cancel=*/false);
    }
    OperationDone();
  }

  void OnDone(bool) {
    if (rpc_->context.IsCancelled()) {
      Break(absl::CancelledError("the client has gone"), /*cancel=*/false);
    }
    OperationDone();
  }

  void OnFinished(bool) {
    {
      absl::MutexLock lock(&mutex_);
      finished_ = true;
    }
    OperationDone();
  }

  // No answer can be sent any more.
  void Break(const absl::Status& why, bool cancel) {
    RingQueue<Frame> dropped;
    SendQueue::LatestFrame unasked;  // May hold the sink.
    {
      absl::MutexLock lock(&mutex_);
      if (!accepted_ || broken_ || rpc_ == nullptr) {
        return;
      }
      broken_ = true;
      if (outcome_.ok()) {
        outcome_ = why;
      }
      dropped = queue_.Clear();
      unasked = queue_.TakeLatest();
      ++pending_;  // Keeps rpc_ for TryCancel.
    }
    context_->Cancel();
    if (cancel) {
      rpc_->context.TryCancel();
    }
    dropped = {};
    unasked = nullptr;
    EndHandler();
    OperationDone();
  }

  void OperationDone() {
    Advance();
    std::unique_ptr<Rpc> over;
    {
      absl::MutexLock lock(&mutex_);
      --pending_;
      if (pending_ > 0 || !finished_) {
        return;
      }
      over = std::move(rpc_);
    }
    over.reset();
    host_.calls->Remove(this);
  }

  // Starts the next sending operation if there is one and none is under way.
  void Advance() {
    SendQueue::Next next;
    bool finish = false;
    absl::Status outcome;
    {
      absl::MutexLock lock(&mutex_);
      if (!accepted_ || sending_ || finishing_) {
        return;
      }
      if (!broken_ && !queue_.empty()) {
        next = queue_.Pop();
        sending_ = true;
      } else if (broken_ || (handler_over_ && sink_released_)) {
        finish = finishing_ = true;
        host_.deadlines->Cancel(timer_);
        host_.deadlines->Cancel(age_timer_);
        outcome = outcome_;
      } else {
        return;
      }
      ++pending_;
    }
    if (finish) {
      rpc_->stream.Finish(ToGrpc(outcome), finish_tag_.Arm(shared_from_this()));
    } else {
      if (next.make != nullptr) {
        next.frame = next.make();
      }
      rpc_->stream.Write(ToByteBuffer(next.frame), next.options,
                         write_tag_.Arm(shared_from_this()));
    }
  }

  const ServerQueue host_;
  const RawStreamMethod* const method_;
  // Operations run outside of mutex_; gRPC orders them. Replaced by null when none is left.
  std::unique_ptr<Rpc> rpc_;
  // Constant once accepted_.
  std::shared_ptr<CallContext> context_;
  OpTag<StreamCall> request_tag_{&StreamCall::OnRequested};
  OpTag<StreamCall> done_tag_{&StreamCall::OnDone};
  OpTag<StreamCall> read_tag_{&StreamCall::OnRead};
  OpTag<StreamCall> write_tag_{&StreamCall::OnWritten};
  OpTag<StreamCall> finish_tag_{&StreamCall::OnFinished};

  mutable absl::Mutex mutex_;
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<StreamHandler> handler_ ABSL_GUARDED_BY(mutex_);
  bool in_handler_ ABSL_GUARDED_BY(mutex_) = false;
  bool handler_over_ ABSL_GUARDED_BY(mutex_) = false;
  bool sink_released_ ABSL_GUARDED_BY(mutex_) = false;
  SendQueue queue_ ABSL_GUARDED_BY(mutex_);
  ServerStreamSink::EndingCallback on_ending_ ABSL_GUARDED_BY(mutex_);
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;  // A sending operation other than Finish.
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;
  TimerQueue::Id timer_ ABSL_GUARDED_BY(mutex_) = 0;
  TimerQueue::Id age_timer_ ABSL_GUARDED_BY(mutex_) = 0;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
  int pending_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

void AwaitStreamCall(const ServerQueue& host, const RawStreamMethod* method) {
  std::make_shared<StreamCall>(host, method)->Await();
}

}  // namespace expertmesh::net
