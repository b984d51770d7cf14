#include "router_service/tracing/tracer.h"

#include <utility>

#include "router_service/tracing/spans_of_batch.h"

namespace expertmesh::tracing {
namespace {

// How long notes wait for more, so that adding one seldom has to wake the thread.
constexpr absl::Duration kGather = absl::Milliseconds(20);

trace::ResourcePtr RouterResource(trace::TextAttributes attributes) {
  trace::AddDefault("service.name", "expertmesh-router", &attributes);
  return std::make_shared<const trace::Resource>(attributes);
}

}  // namespace

Tracer::Tracer(const TracerOptions& options, trace::SpanSink* exporter, Clock* clock)
    : options_(options),
      sampler_(options.keep.ratio),
      resource_(RouterResource(options.resource)),
      exporter_(exporter),
      clock_(clock),
      late_(options.keep.most_per_second),
      store_(options.max_stored_bytes, resource_),
      log_(clock),
      thread_([this] { MakeSpans(); }) {}

Tracer::~Tracer() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    work_.SignalAll();
  }
  thread_.join();
}

RequestTrace Tracer::Begin(absl::string_view traceparent, absl::string_view tracestate) const {
  RequestTrace begun;
  if (!traceparent.empty()) {
    begun.parent = trace::ParseTraceparent(traceparent);
  }
  begun.span.span_id = trace::NewSpanId();
  if (begun.parent.valid()) {
    begun.span.trace_id = begun.parent.trace_id;
    begun.span.flags = begun.parent.flags;
    begun.tracestate = trace::TracestateToPass(tracestate);
    if (options_.keep.parent_based) {
      return begun;
    }
  } else {
    begun.span.trace_id = trace::NewTraceId();
    begun.span.flags = trace::kRandomFlag;
  }
  const bool keeps = sampler_.Keeps(begun.span.trace_id);
  begun.span.flags = static_cast<uint8_t>((begun.span.flags & trace::kRandomFlag) |
                                          (keeps ? trace::kSampledFlag : 0));
  if (keeps && !begun.parent.valid()) {
    begun.tracestate = sampler_.tracestate();
  }
  return begun;
}

bool Tracer::AllowsLate(absl::Time now) {
  const bool allowed = late_.Take(now);
  (allowed ? counts_.kept_late : counts_.dropped_limit).fetch_add(1, std::memory_order_relaxed);
  return allowed;
}

void Tracer::Add(std::shared_ptr<TraceRecord> record) {
  absl::MutexLock lock(&mutex_);
  if (waiting_.size() >= options_.max_waiting) {
    counts_.dropped_full.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  waiting_.push_back(std::move(record));
  if (idle_ || waiting_.size() == options_.max_waiting / 2) {
    idle_ = false;
    work_.Signal();
  }
}

std::shared_ptr<TraceRecord> Tracer::Next() {
  absl::MutexLock lock(&mutex_);
  return waiting_.empty() ? nullptr : waiting_.Pop();
}

void Tracer::Flush() {
  const absl::Duration to_calendar = options_.calendar() - clock_->Now();
  while (const std::shared_ptr<TraceRecord> record = Next()) {
    record->to_calendar = to_calendar;
    store_.Add(*record);
    log_.Add(*record);
    if (exporter_ != nullptr) {
      for (const TraceSpans& spans : SpansOfBatch(*record, resource_)) {
        exporter_->Add(spans.groups);
      }
    }
    counts_.spans.fetch_add(SpansIn(*record), std::memory_order_relaxed);
  }
}

void Tracer::MakeSpans() {
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      idle_ = true;
      while (waiting_.empty() && !stopping_) {
        work_.Wait(&mutex_);
      }
      idle_ = false;
      const absl::Time until = clock_->Now() + kGather;
      while (!stopping_ && waiting_.size() < options_.max_waiting / 2 &&
             !clock_->WaitUntil(&mutex_, &work_, until)) {
      }
    }
    Flush();
    absl::MutexLock lock(&mutex_);
    if (stopping_ && waiting_.empty()) {
      return;
    }
  }
}

}  // namespace expertmesh::tracing
