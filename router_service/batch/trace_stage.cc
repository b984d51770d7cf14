#include "router_service/batch/trace_stage.h"

#include <algorithm>

#include "common/base/peer_text.h"
#include "common/trace/sampling.h"

namespace expertmesh::batch {
namespace {

using tracing::CallRecord;
using tracing::Keep;
using tracing::RequestRecord;
using tracing::TraceRecord;

// What a call's error says at most: the rest is in the log.
constexpr size_t kMostMessageBytes = 256;

// How a request ended.
struct Ending {
  absl::StatusCode code = absl::StatusCode::kOk;
  absl::Time arrival;
  absl::Time answered;
};

void AddRequest(const ForwardJob& job, Keep keep, const Ending& ending, TraceRecord* record) {
  RequestRecord& request = record->requests.emplace_back();
  request.parent = job.trace().parent;
  request.span = job.trace().span;
  request.span.flags |= trace::kSampledFlag;  // It is recorded now.
  request.dispatch = trace::NewSpanId();
  request.tracestate = record->AddText(job.trace().tracestate);
  request.peer = record->AddText(job.context() == nullptr ? "" : job.context()->peer());
  request.keep = keep;
  request.streamed = job.context() != nullptr && job.context()->streamed();
  request.request_id = job.request().request_id();
  request.tokens = job.rows();
  request.code = ending.code;
  request.arrival = ending.arrival;
  request.answered = ending.answered;
}

CallRecord RecordOf(const BatchPart& part, absl::Time now, TraceRecord* record) {
  CallRecord call;
  call.span = part.span;
  call.node_span = trace::NewSpanId();
  call.queue_span = trace::NewSpanId();
  call.compute_span = trace::NewSpanId();
  call.node = part.view->node(part.plan.node).identity;
  call.sent = part.sent;
  call.done = std::min(part.done, now);
  call.rows = part.rows;
  call.assignments = part.assignments;
  call.attempt = part.attempt;
  call.second_opinion = part.second_opinion;
  call.contributes = part.contributes;
  call.code = part.outcome.code();
  call.message = record->AddText(
      CutText(absl::string_view(part.outcome.message().data(), part.outcome.message().size()),
              kMostMessageBytes));
  call.report = part.report;
  return call;
}

}  // namespace

const ForwardJob* LeadOf(const BatchEnvironment& environment, const BatchRequests& requests) {
  if (environment.tracer == nullptr) {
    return nullptr;
  }
  const std::vector<ForwardJobPtr>& jobs = requests.jobs();
  const auto lead = std::find_if(jobs.begin(), jobs.end(), [](const ForwardJobPtr& job) {
    return job->trace().span.sampled();
  });
  return lead == jobs.end() ? jobs.front().get() : lead->get();
}

trace::TraceContext TraceOf(const Batch& batch) {
  return batch.lead == nullptr ? trace::TraceContext() : batch.lead->trace().span;
}

bool TraceStage::Decide(const Batch& batch, absl::Span<const std::shared_ptr<BatchPart>> parts,
                        absl::Time now) {
  tracing::Tracer& tracer = *batch.environment->tracer;
  const bool retried =
      std::any_of(parts.begin(), parts.end(),
                  [](const std::shared_ptr<BatchPart>& part) { return part->attempt > 1; });
  keeps_.clear();
  bool late = false;
  bool sampled = false;
  for (const ForwardJobPtr& job : batch.requests.jobs()) {
    const Keep keep = tracer.KeepFor(job->code(), job->Latency(now), retried);
    late = late || keep != Keep::kNo;
    sampled = sampled || job->trace().span.sampled();
    keeps_.push_back(keep);
  }
  late = late && tracer.AllowsLate(now);
  if (!late && !sampled) {
    return false;
  }
  for (size_t i = 0; i < keeps_.size(); ++i) {
    const ForwardJob& job = *batch.requests.jobs()[i];
    if (!late) {
      keeps_[i] = job.trace().span.sampled() ? Keep::kSampled : Keep::kNo;
    } else if (keeps_[i] == Keep::kNo) {
      keeps_[i] = Keep::kOfBatch;
    }
    if (keeps_[i] != Keep::kNo && !job.ClaimNote()) {
      keeps_[i] = Keep::kNo;  // Noted when it was answered, before the batch began.
    }
  }
  if (sampled) {
    tracer.CountSampled();
  }
  return std::any_of(keeps_.begin(), keeps_.end(), [](Keep keep) { return keep != Keep::kNo; });
}

void TraceStage::Run(const Batch& batch, absl::Span<const std::shared_ptr<BatchPart>> parts) {
  tracing::Tracer* const tracer = batch.environment->tracer;
  if (tracer == nullptr) {
    return;
  }
  const absl::Time now = batch.environment->clock->Now();
  if (!Decide(batch, parts, now)) {
    return;
  }
  std::shared_ptr<TraceRecord> record = tracer->TakeRecord();
  record->layer = batch.layer_index();
  record->top_k = batch.layer->description.routing.top_k;
  record->epoch = batch.view->epoch();
  record->batch_tokens = batch.requests.rows();
  record->batch_requests = static_cast<uint32_t>(batch.requests.jobs().size());
  record->dispatched = true;
  if (record->batch_requests > 1) {
    record->batch = {trace::NewTraceId(), trace::NewSpanId(),
                     trace::kSampledFlag | trace::kRandomFlag};
  }
  record->closed = batch.times.closed;
  // Stages that were left out took no time.
  record->planned = std::max(batch.times.closed, batch.times.dispatched);
  record->received = std::max(record->planned, batch.times.received);
  record->answered = now;
  for (size_t i = 0; i < keeps_.size(); ++i) {
    if (keeps_[i] != Keep::kNo) {
      const ForwardJob& job = *batch.requests.jobs()[i];
      AddRequest(job, keeps_[i], {job.code(), job.arrival(), job.arrival() + job.Latency(now)},
                 record.get());
    }
  }
  for (const std::shared_ptr<BatchPart>& part : parts) {
    record->calls.push_back(RecordOf(*part, now, record.get()));
  }
  tracer->Add(std::move(record));
}

void NoteUnbatched(tracing::Tracer* tracer, const ForwardJob& job, absl::Time arrival,
                   absl::StatusCode code, absl::Time now) {
  if (tracer == nullptr || !job.trace().span.valid()) {
    return;
  }
  Keep keep = tracer->KeepFor(code, now - arrival, /*retried=*/false);
  if (keep != Keep::kNo && !tracer->AllowsLate(now)) {
    keep = Keep::kNo;
  }
  if (keep == Keep::kNo && !job.trace().span.sampled()) {
    return;
  }
  std::shared_ptr<TraceRecord> record = tracer->TakeRecord();
  record->layer = job.request().layer();
  record->batch_requests = 1;
  AddRequest(job, keep == Keep::kNo ? Keep::kSampled : keep, {code, arrival, now}, record.get());
  tracer->Add(std::move(record));
}

}  // namespace expertmesh::batch
