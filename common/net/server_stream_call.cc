#include "common/net/server_stream_call.h"

#include <utility>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ring_queue.h"
#include "common/net/byte_buffer.h"
#include "common/net/grpc_status.h"

namespace expertmesh::net {

void StreamCall::Await() {
  if (!host_.calls->Add(shared_from_this())) {
    return;
  }
  rpc_->context.AsyncNotifyWhenDone(done_tag_.Arm(shared_from_this()));
  host_.service->RequestStream(method_, &rpc_->context, &rpc_->stream, host_.queue,
                               request_tag_.Arm(shared_from_this()));
}

void StreamCall::Drain(const absl::Status& why) {
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

absl::Status StreamCall::Send(Frame frame) {
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

void StreamCall::SendLatest(ServerStreamSink::LatestFrame make) {
  {
    absl::MutexLock lock(&mutex_);
    if (!broken_ && !finishing_) {
      queue_.SetLatest(std::move(make));
    }
  }
  Advance();
}

void StreamCall::OnEnding(ServerStreamSink::EndingCallback callback) {
  {
    absl::MutexLock lock(&mutex_);
    on_ending_ = std::move(callback);
  }
  if (IsEnding()) {
    EndHandler();  // Once more, for the callback.
  }
}

void StreamCall::SinkReleased() {
  {
    absl::MutexLock lock(&mutex_);
    sink_released_ = true;
  }
  Advance();
}

void StreamCall::OnRequested(bool ok) {
  if (!ok) {  // The server is shutting down; there was no call.
    done_tag_.Disarm();
    host_.calls->Remove(this);
    return;
  }
  context_ = MakeCallContext(rpc_->context, /*streamed=*/true);
  if (method_->counter != nullptr) {
    arrival_ = Clock::Real()->Now();
    method_->counter->Started();
  }
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

void StreamCall::StartTimers() {
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

void StreamCall::StartHandler() {
  std::unique_ptr<StreamHandler> handler =
      method_->factory(std::make_shared<Sink>(shared_from_this()), context_);
  EXPERTMESH_CHECK(handler != nullptr);
  absl::MutexLock lock(&mutex_);
  handler = handler_.Set(std::move(handler));
}

void StreamCall::EndHandler() {
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

void StreamCall::OnRead(bool ok) {
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

bool StreamCall::EndRest() {
  if (!resting_ || broken_ || handler_.over() || !window_.HasRoom()) {
    return false;
  }
  resting_ = false;
  ++pending_;
  return true;
}

void StreamCall::WatchReader() {
  if (window_.HoldsMuch() && !timers_.watches_reader()) {
    timers_.WatchReader(host_.max_unread_time, [weak = weak_from_this(), written = written_] {
      if (const auto call = weak.lock()) {
        call->CheckReader(written);
      }
    });
  }
}

void StreamCall::CheckReader(uint64_t written) {
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

void StreamCall::OnWritten(bool ok) {
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

void StreamCall::OnDone(bool) {
  if (rpc_->context.IsCancelled()) {
    if (!answered()) {
      NoteReset(*context_, host_.resets);
    }
    Break(absl::CancelledError("the client has gone"), /*cancel=*/false);
  }
  OperationDone();
}

void StreamCall::OnFinished(bool) {
  {
    absl::MutexLock lock(&mutex_);
    finished_ = true;
  }
  OperationDone();
}

void StreamCall::Break(const absl::Status& why, bool cancel) {
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

void StreamCall::OperationDone() {
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

void StreamCall::Advance() {
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
    if (method_->counter != nullptr) {
      method_->counter->Handled(outcome.code(), Clock::Real()->Now() - arrival_);
    }
    rpc_->stream.Finish(ToGrpc(outcome), finish_tag_.Arm(shared_from_this()));
  } else {
    if (next.make != nullptr) {
      next.frame = next.make();
    }
    rpc_->stream.Write(ToByteBuffer(next.frame), next.options, write_tag_.Arm(shared_from_this()));
  }
}

void AwaitStreamCall(const ServerQueue& host, const RawStreamMethod* method) {
  std::make_shared<StreamCall>(host, method)->Await();
}

}  // namespace expertmesh::net
