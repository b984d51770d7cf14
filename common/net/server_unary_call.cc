#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/net/byte_buffer.h"
#include "common/net/grpc_status.h"
#include "common/net/server_calls.h"
#include "common/wire/error_reason.h"

namespace expertmesh::net {
namespace {

class UnaryCall final : public LiveCall, public std::enable_shared_from_this<UnaryCall> {
 public:
  UnaryCall(const ServerQueue& host, const RawUnaryMethod* method)
      : host_(host), method_(method), rpc_(std::make_unique<Rpc>()) {}

  void Await() {
    if (!host_.calls->Add(shared_from_this())) {
      return;
    }
    rpc_->context.AsyncNotifyWhenDone(done_tag_.Arm(shared_from_this()));
    host_.service->RequestUnary(method_, &rpc_->context, &rpc_->request, &rpc_->writer, host_.queue,
                                request_tag_.Arm(shared_from_this()));
  }

  void Abort(const absl::Status& why) override {
    if (accepted()) {
      context_->Cancel();
      Respond(why);
    }
  }

  void Drain(const absl::Status&) override {}  // Its answer will come by itself.

  std::string peer() const override { return accepted() ? context_->peer() : ""; }

  // The first answer counts.
  void Respond(absl::StatusOr<Frame> answer) {
    {
      absl::MutexLock lock(&mutex_);
      if (answered_) {
        return;
      }
      answered_ = true;
      ++pending_;
      host_.deadlines->Cancel(timer_);
      // By now the request is no longer needed.
      Hold(answer.ok() ? answer->size() : 0);
    }
    if (answer.ok() && answer->size() > host_.max_message_bytes) {
      answer = AnswerTooLarge(answer->size(), host_.max_message_bytes);
    }
    if (method_->counter != nullptr) {
      method_->counter->Handled(answer.status().code(), Clock::Real()->Now() - arrival_);
    }
    host_.resets->OnAnswer(context_->peer());
    void* const tag = finish_tag_.Arm(shared_from_this());
    if (answer.ok()) {
      rpc_->writer.Finish(ToByteBuffer(*answer), grpc::Status::OK, tag);
    } else {
      rpc_->writer.FinishWithError(ToGrpc(answer.status()), tag);
    }
  }

 private:
  // Gone when the call is over, even if a handler keeps its responder.
  struct Rpc {
    grpc::ServerContext context;
    grpc::ByteBuffer request;
    grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> writer{&context};
  };

  bool accepted() const {
    absl::MutexLock lock(&mutex_);
    return accepted_;
  }

  bool answered() const {
    absl::MutexLock lock(&mutex_);
    return answered_;
  }

  void OnRequested(bool ok) {
    if (!ok) {  // The server is shutting down; there was no call.
      done_tag_.Disarm();
      host_.calls->Remove(this);
      return;
    }
    context_ = MakeCallContext(rpc_->context, /*streamed=*/false);
    if (method_->counter != nullptr) {
      arrival_ = Clock::Real()->Now();
      method_->counter->Started();
    }
    {
      absl::MutexLock lock(&mutex_);
      accepted_ = true;
      pending_ = 1;  // done_tag_
    }
    AwaitUnaryCall(host_, method_);
    if (host_.calls->stopped()) {
      Respond(ShuttingDown());
      return;
    }
    if (absl::Status status = CheckMetadata(rpc_->context, host_.max_metadata_bytes);
        !status.ok()) {
      Respond(std::move(status));
      return;
    }
    Frame request = TakeFrame(&rpc_->request);
    if (absl::Status status = HoldRequest(request.size()); !status.ok()) {
      request = {};
      Respond(std::move(status));
      return;
    }
    StartTimer();
    // Answers by itself when the last copy of the responder goes.
    struct Responder {
      explicit Responder(std::shared_ptr<UnaryCall> target) : call(std::move(target)) {}
      ~Responder() {
        call->Respond(ErrorOf(v1::ERROR_REASON_DEFECT, "the request was dropped unanswered"));
      }
      const std::shared_ptr<UnaryCall> call;
    };
    method_->handler(
        std::move(request), context_,
        [responder = std::make_shared<Responder>(shared_from_this())](
            absl::StatusOr<Frame> answer) { responder->call->Respond(std::move(answer)); });
  }

  // RESOURCE_EXHAUSTED when others hold so much that there is no room for a request of `bytes`.
  absl::Status HoldRequest(size_t bytes) {
    const size_t held = host_.budget->held();
    if (held > 0 && bytes > kAlwaysTaken && held + bytes > host_.budget->limit()) {
      return ErrorOf(
          v1::ERROR_REASON_QUEUE_FULL,
          absl::StrCat("requests and answers of ", held, " bytes are held already, the limit is ",
                       host_.budget->limit(), "; retry later"));
    }
    absl::MutexLock lock(&mutex_);
    Hold(bytes);
    return absl::OkStatus();
  }

  // In place of what was held before.
  void Hold(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    host_.budget->Add(bytes);
    host_.budget->Remove(std::exchange(held_bytes_, bytes));
  }

  void StartTimer() {
    if (context_->deadline() != absl::InfiniteFuture()) {
      absl::MutexLock lock(&mutex_);
      timer_ = host_.deadlines->Schedule(context_->deadline(), [call = shared_from_this()] {
        call->context_->Cancel();
        call->Respond(DeadlinePassed());
      });
    }
  }

  void OnDone(bool) {
    if (rpc_->context.IsCancelled()) {
      context_->Cancel();
      if (!answered()) {
        NoteReset(*context_, host_.resets);
      }
    }
    OnOperationDone();
  }

  void OnFinished(bool) { OnOperationDone(); }

  void OnOperationDone() {
    std::unique_ptr<Rpc> over;
    {
      absl::MutexLock lock(&mutex_);
      --pending_;
      if (pending_ > 0 || !answered_) {
        return;
      }
      over = std::move(rpc_);
      Hold(0);
    }
    over.reset();
    host_.calls->Remove(this);
  }

  // Bytes of a request that finds room whatever is held: those that ask how the server is.
  static constexpr size_t kAlwaysTaken = 64 << 10;

  const ServerQueue host_;
  const RawUnaryMethod* const method_;
  // Operations run outside of mutex_; gRPC orders them. Replaced by null when none is left.
  std::unique_ptr<Rpc> rpc_;
  // Constant once accepted_.
  std::shared_ptr<CallContext> context_;
  absl::Time arrival_;  // Where calls are counted.
  OpTag<UnaryCall> request_tag_{&UnaryCall::OnRequested};
  OpTag<UnaryCall> done_tag_{&UnaryCall::OnDone};
  OpTag<UnaryCall> finish_tag_{&UnaryCall::OnFinished};

  mutable absl::Mutex mutex_;
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;
  TimerQueue::Id timer_ ABSL_GUARDED_BY(mutex_) = 0;
  int pending_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // In the budget.
};

}  // namespace

void AwaitUnaryCall(const ServerQueue& host, const RawUnaryMethod* method) {
  std::make_shared<UnaryCall>(host, method)->Await();
}

}  // namespace expertmesh::net
