#include "router_service/serve/forward_service.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/wire/error_reason.h"
#include "common/wire/extensions.h"
#include "common/wire/status.h"
#include "common/wire/tensor_encode.h"
#include "common/wire/wire_dtype.h"
#include "router_service/batch/trace_stage.h"

namespace expertmesh::serve {

namespace {

// More than any batch has, so that nothing overflows.
constexpr uint64_t kMostTokens = uint64_t{1} << 26;

// The id of a request too large to be read, for its caller to know which it was; 0: not found.
uint64_t RequestIdOf(const Frame& frame) {
  constexpr size_t kBegin = 64;  // It comes first.
  Frame begin;
  frame.AppendTo(0, std::min(frame.size(), kBegin), &begin);
  v1::ForwardRequest request;
  // The end is missing: fields read before that stay set.
  (void)request.ParsePartialFromString(begin.Flatten());
  return request.request_id();
}

}  // namespace

using batch::ForwardJob;
using batch::ForwardJobPtr;
using batch::Respond;

ForwardService::ForwardService(const ForwardServiceOptions& options, const ServedLayers* layers,
                               Admission* admission, const mesh::Fleet* fleet,
                               metrics::RouterMetrics* metrics, TimerQueue* timers,
                               ThreadPool* pool, Clock* clock)
    : options_(options),
      layers_(layers),
      admission_(admission),
      fleet_(fleet),
      metrics_(metrics),
      timers_(timers),
      pool_(pool),
      clock_(clock) {}

size_t MostOtherBytes(uint64_t max_tokens) {
  constexpr uint64_t kPerToken = 2 * 6;  // An id and a group, each a tag and a varint at most.
  constexpr uint64_t kAllElse = uint64_t{1} << 20;  // Mostly extensions.
  return static_cast<size_t>(kAllElse + std::min(max_tokens, kMostTokens) * kPerToken);
}

ForwardService::~ForwardService() { AwaitReads(); }

void ForwardService::AwaitReads() const {
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return reads_ == 0; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&none));
}

void ForwardService::Forward(const Frame& request, const CallContextPtr& context, Respond respond) {
  const absl::Time arrival = clock_->Now();
  const ForwardJobPtr job = jobs_.Take();
  const absl::Status read = DecodeTensorMessage(request, job->received(), kQuickBytes);
  if (absl::IsOutOfRange(read)) {
    ReadOnPool(request, arrival, context, job, std::move(respond));
  } else {
    Serve(read, arrival, context, job, std::move(respond));
  }
}

void ForwardService::ReadOnPool(const Frame& request, absl::Time arrival,
                                const CallContextPtr& context, const ForwardJobPtr& job,
                                Respond respond) {
  bool taken = false;
  {
    absl::MutexLock lock(&mutex_);
    taken = reads_ < kMostReads;
    reads_ += taken ? 1 : 0;
  }
  if (!taken) {
    job->received()->message.set_request_id(RequestIdOf(request));
    Refuse(*job, arrival,
           ErrorOf(v1::ERROR_REASON_QUEUE_FULL,
                   absl::StrCat(kMostReads, " requests of more than ", kQuickBytes,
                                " bytes beside hidden_states are being read; retry later")),
           &respond);
    return;
  }
  pool_->Run([this, request, arrival, context, job = job, respond = std::move(respond)]() mutable {
    absl::Status read =
        DecodeTensorMessage(request, job->received(), MostOtherBytes(options_.max_tokens));
    if (absl::IsOutOfRange(read)) {
      job->received()->message.set_request_id(RequestIdOf(request));
      Refuse(*job, arrival,
             absl::InvalidArgumentError(absl::StrCat(
                 read.message(),
                 "; that is room for extensions, and for token_ids and group_sizes of ",
                 options_.max_tokens, " tokens, the most at once: send fewer")),
             &respond);
    } else {
      Serve(std::move(read), arrival, context, job, std::move(respond));
    }
    job = nullptr;  // It belongs to this.
    absl::MutexLock lock(&mutex_);
    --reads_;
  });
}

void ForwardService::Serve(absl::Status read, absl::Time arrival, const CallContextPtr& context,
                           const ForwardJobPtr& job, Respond respond) {
  absl::Status accepted = std::move(read);
  BeginTrace(*context, job.get());
  if (!accepted.ok()) {
    job->received()->message.clear_request_id();  // What was read of it means nothing.
  } else if (job->request().heartbeat()) {
    v1::ForwardResponse response;
    response.set_request_id(job->request().request_id());
    response.set_heartbeat(true);
    respond(response, std::nullopt);
    return;
  } else {
    accepted = Accept(arrival, context, job.get(), &respond);
  }
  if (!accepted.ok()) {
    Refuse(*job, arrival, accepted, &respond);
    return;
  }
  if (job->rows() == 0) {
    AnswerNothing(job.get());
    return;
  }
  ForwardJob::StartDeadlineTimer(job);
  const absl::Status queued = layers_->at(job->request().layer()).batcher->Add(job);
  if (!queued.ok()) {
    job->Fail(queued);
  }
}

void ForwardService::BeginTrace(const CallContext& context, ForwardJob* job) const {
  if (options_.tracer == nullptr) {
    return;
  }
  const v1::ForwardRequest& request = job->request();
  tracing::RequestTrace trace = options_.tracer->Begin(request.traceparent(), request.tracestate());
  if (!trace.parent.valid() && !context.traceparent().empty()) {  // Then that of the call holds.
    trace = options_.tracer->Begin(context.traceparent(), context.tracestate());
  }
  job->SetTrace(trace);
}

void ForwardService::Refuse(const ForwardJob& job, absl::Time arrival, const absl::Status& why,
                            Respond* respond) {
  metrics_->CountRequest(why.code());
  batch::NoteUnbatched(options_.tracer, job, arrival, why.code(), clock_->Now());
  v1::ForwardResponse response;
  response.set_request_id(job.request().request_id());
  *response.mutable_status() =
      ToWire(WithReason(absl::IsInvalidArgument(why) ? WithFieldViolation(why) : why));
  (*respond)(response, std::nullopt);
}

void ForwardService::AnswerNothing(ForwardJob* job) {
  v1::ForwardResponse response;
  response.mutable_status();
  response.set_epoch(fleet_->view()->epoch());
  if (job->request().return_routing()) {
    const RoutingOptions& routing = layers_->at(job->request().layer()).runtime.description.routing;
    response.mutable_routing()->set_experts_per_token(
        routing.choice == Choice::kExpertChoice ? 0 : routing.top_k);
  }
  job->Answer(&response, TensorFrame{job->output_dtype(), 0, options_.d_model, {}});
}

absl::Status ForwardService::Validate(const TensorMessage<v1::ForwardRequest>& request) const {
  const auto layer = layers_->find(request.message.layer());
  if (layer == layers_->end()) {
    std::vector<uint32_t> known;
    for (const auto& [index, served] : *layers_) {
      known.push_back(index);
    }
    return absl::InvalidArgumentError(absl::StrCat("layer is ", request.message.layer(),
                                                   "; this model's MoE layers are ",
                                                   absl::StrJoin(known, ", ")));
  }
  RETURN_IF_ERROR(RefuseExtensions(request.message.extensions()));
  if (!request.has_tensor) {
    return absl::InvalidArgumentError("hidden_states is missing; send a [tokens, d_model] tensor");
  }
  if (request.tensor.cols != options_.d_model) {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden_states.shape is [", request.tensor.rows, ", ", request.tensor.cols,
                     "]; d_model of this model is ", options_.d_model));
  }
  if (request.tensor.rows > options_.max_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("hidden_states.shape has ", request.tensor.rows,
                                                   " tokens; send at most ", options_.max_tokens,
                                                   " at once"));
  }
  const RoutingOptions& routing = layer->second.runtime.description.routing;
  return gate::CheckRequestTokens(
      routing, batch::TokensOf(request.message, request.tensor.rows, routing.seed));
}

// Before anything is computed: the tensor and the routing are all that grows with the tokens.
absl::Status ForwardService::CheckAnswerSize(const TensorMessage<v1::ForwardRequest>& request,
                                             Dtype output_dtype) const {
  constexpr uint64_t kBytesPerAssignment = 8;  // An id, and a weight of 4 bytes, at most.
  constexpr uint64_t kHeader = 256;            // All else, at most.
  uint64_t row_bytes = WireRowBytes(output_dtype, options_.d_model);
  if (request.message.return_routing()) {
    const ServedLayer& layer = layers_->at(request.message.layer());
    row_bytes += layer.runtime.description.routing.top_k * kBytesPerAssignment;
  }
  const uint64_t bytes = kHeader + row_bytes * request.tensor.rows;
  uint64_t limit = options_.max_response_bytes;
  if (request.message.max_response_bytes() != 0) {
    limit = std::min<uint64_t>(limit, request.message.max_response_bytes());
  }
  return bytes > limit ? AnswerTooLarge(bytes, limit) : absl::OkStatus();
}

absl::Status ForwardService::Accept(absl::Time arrival, const CallContextPtr& context,
                                    ForwardJob* job, Respond* respond) {
  const TensorMessage<v1::ForwardRequest>& request = *job->received();
  RETURN_IF_ERROR(request.tensor_status);
  RETURN_IF_ERROR(Validate(request));
  Dtype output_dtype = request.tensor.dtype;
  if (request.message.output_dtype() != v1::DTYPE_UNSPECIFIED) {
    ASSIGN_OR_RETURN(output_dtype, FromWire(request.message.output_dtype(), "output_dtype"));
  }
  RETURN_IF_ERROR(CheckAnswerSize(request, output_dtype));
  absl::Time deadline = std::min(context->deadline(), arrival + options_.max_request_time);
  if (request.message.has_timeout_us()) {
    deadline = std::min(deadline, arrival + absl::Microseconds(request.message.timeout_us()));
  }
  if (deadline <= arrival) {
    return ErrorOf(v1::ERROR_REASON_DEADLINE_PASSED,
                   "the deadline had passed when the request arrived");
  }
  RETURN_IF_ERROR(admission_->Admit(request.tensor.rows, arrival, deadline));
  job->Accept(output_dtype, arrival, deadline, context, timers_, admission_, std::move(*respond));
  return absl::OkStatus();
}

}  // namespace expertmesh::serve
