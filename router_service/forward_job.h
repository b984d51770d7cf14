// One request inside the router, from acceptance to its one answer.
#ifndef EXPERTMESH_ROUTER_SERVICE_FORWARD_JOB_H_
#define EXPERTMESH_ROUTER_SERVICE_FORWARD_JOB_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/timer_queue.h"
#include "common/tensor/dtype.h"
#include "common/wire/message_codec.h"
#include "expertmesh/v1/router.pb.h"
#include "router_service/gate/routed_tokens.h"

namespace expertmesh {

// Called once. `output` is empty on error. May run on any thread; must not block.
using Respond =
    std::function<void(v1::ForwardResponse response, std::optional<TensorFrame> output)>;

// What routing needs to know of a request's tokens. Valid for as long as `request`.
inline RequestTokens TokensOf(const v1::ForwardRequest& request, uint64_t rows, uint64_t seed) {
  return {rows, request.group_sizes(), request.token_ids(),
          request.has_routing_seed() ? request.routing_seed() : seed};
}

// Fields are constant after construction; answering is thread-safe, and only the first answer
// counts.
class ForwardJob {
 public:
  ForwardJob(v1::ForwardRequest request, TensorFrame hidden_states, DType output_dtype,
             absl::Time arrival, absl::Time deadline, TimerQueue* timers, Respond respond)
      : request(std::move(request)),
        hidden_states(std::move(hidden_states)),
        output_dtype(output_dtype),
        arrival(arrival),
        deadline(deadline),
        timers_(timers),
        respond_(std::move(respond)) {}

  const v1::ForwardRequest request;  // Without its tensor.
  const TensorFrame hidden_states;
  const DType output_dtype;
  const absl::Time arrival;
  const absl::Time deadline;  // InfiniteFuture when there is none.

  uint64_t rows() const { return hidden_states.rows; }
  // As routing sees it; `seed`: when the request brings none. Valid for as long as the job.
  RequestTokens tokens(uint64_t seed) const { return TokensOf(request, rows(), seed); }
  bool answered() const { return answered_.load(std::memory_order_acquire); }

  // Answers DEADLINE_EXCEEDED when the deadline passes first. At most once, before the job is
  // shared.
  static void StartDeadlineTimer(const std::shared_ptr<ForwardJob>& job) {
    if (job->deadline == absl::InfiniteFuture()) {
      return;
    }
    job->timer_ = job->timers_->Schedule(job->deadline, [weak = std::weak_ptr<ForwardJob>(job)] {
      if (const std::shared_ptr<ForwardJob> job = weak.lock()) {
        job->Fail(absl::DeadlineExceededError("the deadline passed before the experts answered"));
      }
    });
  }

  void Fail(const absl::Status& status) {
    v1::ForwardResponse response;
    response.mutable_status()->set_code(static_cast<int>(status.code()));
    response.mutable_status()->set_message(std::string(status.message()));
    Answer(std::move(response), std::nullopt);
  }

  void Answer(v1::ForwardResponse response, std::optional<TensorFrame> output) {
    if (answered_.exchange(true, std::memory_order_acq_rel)) {
      return;
    }
    timers_->Cancel(timer_);
    response.set_request_id(request.request_id());
    respond_(std::move(response), std::move(output));
    respond_ = nullptr;
  }

 private:
  TimerQueue* const timers_;
  std::atomic<TimerQueue::Id> timer_{0};
  std::atomic<bool> answered_{false};
  Respond respond_;
};

using ForwardJobPtr = std::shared_ptr<ForwardJob>;

// Tokens of all of them.
inline uint64_t RowsOf(const std::vector<ForwardJobPtr>& jobs) {
  uint64_t rows = 0;
  for (const ForwardJobPtr& job : jobs) {
    rows += job->rows();
  }
  return rows;
}

}  // namespace expertmesh

#endif  // EXPERTMESH_ROUTER_SERVICE_FORWARD_JOB_H_
