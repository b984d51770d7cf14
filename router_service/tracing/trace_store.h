// Spans of the last traces, for those who ask the router itself: the newest, and the slowest among
// those that would be forgotten.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_STORE_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_STORE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/trace/span_sink.h"
#include "common/trace/trace_context.h"
#include "router_service/tracing/trace_record.h"

namespace expertmesh::tracing {

// A trace in one line. Times are of the calendar.
struct TraceLine {
  trace::TraceId id;
  // What the router's first span is called; lives for ever.
  absl::string_view name;
  absl::Time start;
  absl::Duration duration;
  uint32_t layer = 0;
  uint64_t tokens = 0;
  absl::StatusCode code = absl::StatusCode::kOk;
  Keep keep = Keep::kNo;
  uint32_t spans = 0;
};

// The spans of one request, or of one batch.
struct TraceSpans {
  TraceLine line;
  std::vector<trace::SpanGroup> groups;
};

// Thread-safe.
class TraceStore {
 public:
  // What is kept beyond the newest.
  static constexpr size_t kSlowest = 64;

  // Keeps the newest traces that fit into `max_bytes`, and no more than that again of the slowest.
  explicit TraceStore(size_t max_bytes) : max_bytes_(max_bytes) {}

  void Add(TraceSpans spans);

  // The bytes of an OTLP TracesData with all there is of a trace.
  std::optional<std::string> Find(const trace::TraceId& id) const;

  // At most `limit`: the newest first, or the longest first.
  std::vector<TraceLine> Recent(size_t limit) const;
  std::vector<TraceLine> Slowest(size_t limit) const;

 private:
  using Entry = std::shared_ptr<const TraceSpans>;

  // Forgets the oldest entry, unless it is among the slowest.
  void DropOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_bytes_;
  mutable absl::Mutex mutex_;
  // By age.
  std::deque<Entry> newest_ ABSL_GUARDED_BY(mutex_);
  size_t newest_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // By duration; not among the newest any more.
  std::multimap<absl::Duration, Entry> slowest_ ABSL_GUARDED_BY(mutex_);
  size_t slowest_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<trace::TraceId, std::vector<Entry>> by_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::tracing

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_STORE_H_
