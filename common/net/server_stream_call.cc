#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ring_queue.h"
#include "common/net/byte_buffer.h"
#include "common/net/grpc_status.h"
#include "common/net/handler_slot.h"
#include "common/net/send_queue.h"
#include "common/net/server_calls.h"
#include "common/net/stream_timers.h"
#include "common/net/stream_window.h"

namespace expertmesh::net {
namespace {

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
      outcome_.Update(why);
    }
    EndHandler();
    Advance();
  }

  absl::Status Send(Frame frame) {
    const size_t bytes = frame.size();
    absl::Status status;
    bool over = false;
    bool resumes = false;
    {
      absl::MutexLock lock(&mutex_);
      window_.Answered();
      if (bytes > host_.max_message_bytes) {
        status = FrameTooLarge(bytes, host_.max_message_bytes);
      } else if (broken_ || finishing_) {
        status = absl::UnavailableError("the stream is gone, so this answer cannot be sent");
      } else if (window_.IsOver()) {
        over = true;
        status = AnswersUnread(window_.queued(), host_.send_queue_bytes);
      } else {
        queue_.Push(std::move(frame));
        window_.Queued(bytes);
        WatchReader();
      }
      resumes = EndRest();
    }
    if (resumes) {
      Read();
    }
    if (over) {
      Break(status, /*cancel=*/true);
    } else if (status.ok()) {
      Advance();
    }
    return status;
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
    Read();
  }

  void Read() { rpc_->stream.Read(&rpc_->received, read_tag_.Arm(shared_from_this())); }

  void StartTimers() {
    absl::MutexLock lock(&mutex_);
    timers_.AtDeadline(context_->deadline(), [call = shared_from_this()] {
      call->Break(DeadlinePassed(), /*cancel=*/call->IsSending());
    });
    if (method_->ages) {
      timers_.AtAge(host_.max_stream_age, [weak = weak_from_this()] {
        if (const auto call = weak.lock()) {
          call->Drain(StreamAged());
        }
      });
    }
  }

  bool answered() const {
    absl::MutexLock lock(&mutex_);
    return written_ > 1;  // The metadata that the stream begins with is the first.
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
    handler = handler_.Set(std::move(handler));
  }

  // Destroys the handler, or lets the frame that it is working on do so. Tells when the stream
  // ends.
  void EndHandler() {
    std::unique_ptr<StreamHandler> dying;  // Destroyed after the lock is gone.
    ServerStreamSink::EndingCallback ending;
    {
      absl::MutexLock lock(&mutex_);
      dying = handler_.End();
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
    Frame frame = TakeFrame(&rpc_->received);
    StreamHandler* handler = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      handler = handler_.Enter();
      if (handler != nullptr) {
        window_.Received(frame.size());
      }
    }
    bool rests = false;
    if (handler != nullptr) {
      handler->OnFrame(std::move(frame));
      std::unique_ptr<StreamHandler> dying;  // Destroyed after the lock is gone.
      absl::MutexLock lock(&mutex_);
      dying = handler_.Leave();
      rests = resting_ = !handler_.over() && window_.IsFull();
    }
    if (rests) {
      OperationDone();
    } else {
      Read();
    }
  }

  // True when the caller has to Read(), which counts as under way already.
  bool EndRest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!resting_ || broken_ || handler_.over() || !window_.HasRoom()) {
      return false;
    }
    resting_ = false;
    ++pending_;
    return true;
  }

  // From when something is queued that the client may never read.
  void WatchReader() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (window_.HoldsMuch() && !timers_.watches_reader()) {
      timers_.WatchReader(host_.max_unread_time, [weak = weak_from_this(), written = written_] {
        if (const auto call = weak.lock()) {
          call->CheckReader(written);
        }
      });
    }
  }

  // `written` frames had been when the time began.
  void CheckReader(uint64_t written) {
    absl::Status why;
    {
      absl::MutexLock lock(&mutex_);
      timers_.ReaderChecked();
      if (written_ != written || !sending_) {
        WatchReader();
        return;
      }
      why = AnswersUnread(window_.queued(), host_.send_queue_bytes);
    }
    Break(why, /*cancel=*/true);
  }

  void OnWritten(bool ok) {
    bool resumes = false;
    {
      absl::MutexLock lock(&mutex_);
      sending_ = false;
      ++written_;
      window_.Sent(queue_.Written(), /*read_all=*/queue_.empty());
      resumes = EndRest();
    }
    if (resumes) {
      Read();
    }
    if (!ok) {
      Break(absl::UnavailableError("the stream broke"), /*cancel=*/false);
    }
    OperationDone();
  }

  void OnDone(bool) {
    if (rpc_->context.IsCancelled()) {
      if (!answered()) {
        NoteReset(*context_, host_.resets);
      }
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
      outcome_.Update(why);
      dropped = queue_.Clear();
      window_.Dropped(/*left=*/queue_.bytes());
      unasked = queue_.TakeLatest();
      ++pending_;  // Keeps rpc_ for CancelCall.
    }
    context_->Cancel();
    if (cancel) {
      CancelCall(why, &rpc_->context);
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
      } else if (broken_ || (handler_.over() && sink_released_)) {
        finish = finishing_ = true;
        timers_.CancelAll();
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

}  // namespace

void AwaitStreamCall(const ServerQueue& host, const RawStreamMethod* method) {
  std::make_shared<StreamCall>(host, method)->Await();
}

}  // namespace expertmesh::net
