// One request inside the router, from acceptance to its one answer.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_FORWARD_JOB_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_FORWARD_JOB_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/timer_queue.h"
#include "common/gate/routed_tokens.h"
#include "common/tensor/dtype.h"
#include "common/transport/call_context.h"
#include "common/wire/error_reason.h"
#include "common/wire/message_codec.h"
#include "common/wire/status.h"
#include "expertmesh/v1/router.pb.h"
#include "router_service/tracing/trace_record.h"

namespace expertmesh::batch {

// Called once. `response` is valid during the call; `output` is empty on error. May run on any
// thread; must not block.
using Respond = absl::AnyInvocable<void(const v1::ForwardResponse& response,
                                        std::optional<TensorFrame> output)>;

// What routing needs to know of a request's tokens. Valid for as long as `request`.
inline gate::RequestTokens TokensOf(const v1::ForwardRequest& request, uint64_t rows,
                                    uint64_t seed) {
  return {rows, request.group_sizes(), request.token_ids(),
          request.has_routing_seed() ? request.routing_seed() : seed,
          request.select_bias() == v1::SELECT_BIAS_CHECKPOINT};
}

class ForwardJob;

// Who accepted the job.
class JobObserver {
 public:
  virtual ~JobObserver() = default;
  // Just before, and just after it is answered. Returns the time.
  virtual absl::Time OnAnswer(const ForwardJob& job, absl::StatusCode code) = 0;
  virtual void OnAnswered() = 0;
};

// Lives in a SharedPool. After Accept all but the answer is constant; answering is thread-safe, and
// only the first answer counts.
class ForwardJob {
 public:
  // To decode into, before Accept: it is empty, and has memory of requests before.
  TensorMessage<v1::ForwardRequest>* received() { return &received_; }

  // Where the request is in its trace; before Accept.
  void SetTrace(const tracing::RequestTrace& trace) { trace_ = trace; }

  // `observer` may be null; pointers must outlive the answer.
  void Accept(Dtype output_dtype, absl::Time arrival, absl::Time deadline, CallContextPtr context,
              TimerQueue* timers, JobObserver* observer, Respond respond) {
    output_dtype_ = output_dtype;
    arrival_ = arrival;
    deadline_ = deadline;
    context_ = std::move(context);
    timers_ = timers;
    observer_ = observer;
    respond_ = std::move(respond);
  }

  // Without its tensor.
  const v1::ForwardRequest& request() const { return received_.message; }
  const TensorFrame& hidden_states() const { return received_.tensor; }
  Dtype output_dtype() const { return output_dtype_; }
  absl::Time arrival() const { return arrival_; }
  absl::Time deadline() const { return deadline_; }  // InfiniteFuture when there is none.
  // The call that brought the request; null before Accept.
  const CallContext* context() const { return context_.get(); }
  const tracing::RequestTrace& trace() const { return trace_; }
  uint64_t rows() const { return hidden_states().rows; }
  // As routing sees it; `seed`: when the request brings none. Valid for as long as the job.
  gate::RequestTokens tokens(uint64_t seed) const { return TokensOf(request(), rows(), seed); }
  bool answered() const { return answered_.load(std::memory_order_acquire); }
  // What it was answered with, and after what time; while another thread is about to say so, that
  // it took until `now`.
  absl::StatusCode code() const { return code_.load(std::memory_order_relaxed); }
  absl::Duration Latency(absl::Time now) const {
    const int64_t nanos = latency_nanos_.load(std::memory_order_relaxed);
    return nanos < 0 ? now - arrival_ : absl::Nanoseconds(nanos);
  }

  // It is part of a batch, which takes note for its spans.
  void SetBatched() { batched_.store(true, std::memory_order_relaxed); }
  bool batched() const { return batched_.load(std::memory_order_relaxed); }
  // True once: for the one that takes note. A request may be answered just as it leaves the queue.
  bool ClaimNote() const { return !noted_.exchange(true, std::memory_order_relaxed); }

  // Answers DEADLINE_EXCEEDED when the deadline passes first. At most once, before the job is
  // shared.
  static void StartDeadlineTimer(const std::shared_ptr<ForwardJob>& job) {
    if (job->deadline_ == absl::InfiniteFuture()) {
      return;
    }
    job->timer_ = job->timers_->Schedule(job->deadline_, [weak = std::weak_ptr<ForwardJob>(job)] {
      if (const std::shared_ptr<ForwardJob> job = weak.lock()) {
        job->Fail(ErrorOf(v1::ERROR_REASON_DEADLINE_PASSED,
                          "the deadline passed before the experts answered"));
      }
    });
  }

  void Fail(const absl::Status& status) {
    v1::ForwardResponse response;
    *response.mutable_status() = ToWire(WithReason(status));
    Answer(&response, std::nullopt);
  }

  // Sets the response's request_id.
  void Answer(v1::ForwardResponse* response, std::optional<TensorFrame> output) {
    if (answered_.exchange(true, std::memory_order_acq_rel)) {
      return;
    }
    timers_->Cancel(timer_);
    response->set_request_id(request().request_id());
    const absl::StatusCode code = FromWire(response->status()).code();
    code_.store(code, std::memory_order_relaxed);
    if (observer_ != nullptr) {
      const absl::Time now = observer_->OnAnswer(*this, code);
      latency_nanos_.store(absl::ToInt64Nanoseconds(now - arrival_), std::memory_order_relaxed);
    }
    respond_(*response, std::move(output));
    respond_ = nullptr;
    if (observer_ != nullptr) {
      observer_->OnAnswered();
    }
  }

  // SharedPool.
  void Recycle() {
    v1::ForwardRequest& request = received_.message;
    if (request.ByteSizeLong() > kMostKept) {
      v1::ForwardRequest().Swap(&request);
    } else {
      request.Clear();
    }
    received_.tensor = {};
    respond_ = nullptr;
    context_ = nullptr;
    trace_ = {};
    timer_ = 0;
    answered_ = false;
    batched_ = false;
    noted_ = false;
    code_ = absl::StatusCode::kOk;
    latency_nanos_ = -1;
  }
  size_t MemoryBytes() const { return sizeof(*this) + kMostKept; }

 private:
  // Bytes of a request whose memory is kept: token ids of a large batch.
  static constexpr size_t kMostKept = 64 << 10;

  TensorMessage<v1::ForwardRequest> received_;
  Dtype output_dtype_ = Dtype::kF32;
  absl::Time arrival_;
  absl::Time deadline_;
  CallContextPtr context_;
  tracing::RequestTrace trace_;
  TimerQueue* timers_ = nullptr;
  JobObserver* observer_ = nullptr;
  std::atomic<TimerQueue::Id> timer_{0};
  std::atomic<bool> answered_{false};
  std::atomic<bool> batched_{false};
  mutable std::atomic<bool> noted_{false};
  std::atomic<absl::StatusCode> code_{absl::StatusCode::kOk};
  std::atomic<int64_t> latency_nanos_{-1};
  Respond respond_;
};

using ForwardJobPtr = std::shared_ptr<ForwardJob>;

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_FORWARD_JOB_H_
