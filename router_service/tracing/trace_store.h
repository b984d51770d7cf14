// The last traces, for those who ask the router itself: the newest, and the slowest among those
// that would be forgotten. Kept as notes; spans are made of them for those that are asked for.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_STORE_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_STORE_H_

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/trace/resource.h"
#include "common/trace/trace_context.h"
#include "router_service/tracing/spans_of_batch.h"
#include "router_service/tracing/trace_record.h"

namespace expertmesh::tracing {

// Thread-safe.
class TraceStore {
 public:
  // What is kept beyond the newest.
  static constexpr size_t kSlowest = 64;

  // Keeps the newest batches that fit into `max_bytes`, and no more than that again of the slowest.
  // `router`: the resource of this process.
  TraceStore(size_t max_bytes, trace::ResourcePtr router)
      : max_bytes_(max_bytes), router_(std::move(router)) {}

  // Copies the record.
  void Add(const TraceRecord& record);

  // The bytes of an OTLP TracesData with all there is of a trace.
  std::optional<std::string> Find(const trace::TraceId& id) const;

  // At most `limit`: the newest first, or the longest first.
  std::vector<TraceLine> Recent(size_t limit) const;
  std::vector<TraceLine> Slowest(size_t limit) const;

 private:
  using Entry = std::shared_ptr<const TraceRecord>;

  // Forgets the oldest entry, unless it is among the slowest.
  void DropOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_bytes_;
  const trace::ResourcePtr router_;
  mutable absl::Mutex mutex_;
  // By age.
  std::deque<Entry> newest_ ABSL_GUARDED_BY(mutex_);
  size_t newest_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // By duration; not among the newest any more.
  std::multimap<absl::Duration, Entry> slowest_ ABSL_GUARDED_BY(mutex_);
  size_t slowest_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<trace::TraceId, absl::InlinedVector<Entry, 1>> by_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::tracing

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_STORE_H_
