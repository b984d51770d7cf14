// The traces of a router: begins the spans of requests, takes notes of what became of them, and
// makes spans of the notes on a thread of its own.
//
// A router makes the spans of its nodes as well, of the times that their answers bring: a node
// needs neither an exporter nor a decision of its own, what is kept late is kept whole, and no
// clock but the router's orders the spans of a trace.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACING_TRACER_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACING_TRACER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/ring_queue.h"
#include "common/base/shared_pool.h"
#include "common/trace/resource.h"
#include "common/trace/sampling.h"
#include "common/trace/span_sink.h"
#include "router_service/tracing/keep_policy.h"
#include "router_service/tracing/request_log.h"
#include "router_service/tracing/trace_record.h"
#include "router_service/tracing/trace_store.h"

namespace expertmesh::tracing {

struct TracerOptions {
  KeepOptions keep;
  // What spans say of this router; service.name and the like are added.
  trace::TextAttributes resource;
  // Batches whose spans are not made yet; more are dropped.
  size_t max_waiting = 1024;
  // The time of day; spans have their times by it.
  std::function<absl::Time()> calendar = absl::Now;
  // Bytes of spans that are kept for GetTrace.
  size_t max_stored_bytes = size_t{32} << 20;
};

// What became of notes, since the start.
struct TracerCounts {
  std::atomic<uint64_t> spans{0};
  std::atomic<uint64_t> kept_sampled{0};   // Batches with a request that was sampled.
  std::atomic<uint64_t> kept_late{0};      // Batches kept for what became of them alone.
  std::atomic<uint64_t> dropped_limit{0};  // The same, but more than KeepOptions allow a second.
  std::atomic<uint64_t> dropped_full{0};   // Batches dropped since too many waited.
};

// Thread-safe.
class Tracer {
 public:
  // `exporter` may be null. Pointers must outlive the tracer.
  Tracer(const TracerOptions& options, trace::SpanSink* exporter, Clock* clock);
  // Makes spans of what was noted before.
  ~Tracer();

  // The router's span of a request that says `traceparent` and `tracestate` (which must live as
  // long as the request); what is not valid counts as absent. Never allocates.
  RequestTrace Begin(absl::string_view traceparent, absl::string_view tracestate) const;

  // Why a request is kept though it is not sampled, by what is known when it was answered.
  Keep KeepFor(absl::StatusCode code, absl::Duration duration, bool retried) const {
    return tracing::KeepFor(options_.keep, code, duration, retried);
  }
  // Whether another batch may be kept for that.
  bool AllowsLate(absl::Time now);
  // A batch has a request that is sampled.
  void CountSampled() { counts_.kept_sampled.fetch_add(1, std::memory_order_relaxed); }

  // An empty record, to be filled and given to Add.
  std::shared_ptr<TraceRecord> TakeRecord() { return records_.Take(); }
  // Never waits.
  void Add(std::shared_ptr<TraceRecord> record);

  // Makes spans of all that was added before, on this thread.
  void Flush();

  const TraceStore& store() const { return store_; }
  const TracerCounts& counts() const { return counts_; }

 private:
  void MakeSpans();
  std::shared_ptr<TraceRecord> Next();

  const TracerOptions options_;
  const trace::RatioSampler sampler_;
  const trace::ResourcePtr resource_;
  trace::SpanSink* const exporter_;
  Clock* const clock_;
  KeepLimit late_;
  TracerCounts counts_;
  SharedPool<TraceRecord> records_{{.objects = 256, .bytes = 4 << 20}};
  TraceStore store_;
  RequestLog log_;

  absl::Mutex mutex_;
  RingQueue<std::shared_ptr<TraceRecord>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // The thread sleeps until something is added.
  bool idle_ ABSL_GUARDED_BY(mutex_) = false;
  absl::CondVar work_;
  std::thread thread_;
};

}  // namespace expertmesh::tracing

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACING_TRACER_H_
