// Exemplars: for each bucket of a histogram, or for a counter, the last trace that was counted in
// it.
#ifndef EXPERTMESH_COMMON_TELEMETRY_EXEMPLARS_H_
#define EXPERTMESH_COMMON_TELEMETRY_EXEMPLARS_H_

#include <prometheus/labels.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/trace/trace_context.h"

namespace expertmesh::telemetry {

struct Exemplar {
  trace::TraceContext context;
  double value = 0;
  absl::Time time;
};

// Holds one exemplar, the last. Thread-safe, without a lock: of two that come at the same moment
// one is kept, and a reader gets one of those that were put, or none while one is being put.
class ExemplarSlot {
 public:
  void Put(const Exemplar& exemplar);
  std::optional<Exemplar> Get() const;

 private:
  // Odd while one is being put; 0: there never was one.
  std::atomic<uint64_t> version_{0};
  std::atomic<uint64_t> trace_high_{0};
  std::atomic<uint64_t> trace_low_{0};
  std::atomic<uint64_t> span_id_{0};
  std::atomic<double> value_{0};
  std::atomic<int64_t> unix_nanos_{0};
};

// The slots of one series. Thread-safe.
class ExemplarSlots {
 public:
  // `bounds`: of a histogram, ascending; empty: of a counter.
  explicit ExemplarSlots(std::vector<double> bounds);

  void Put(const Exemplar& exemplar);
  // By bucket, in order of the bounds; the last is beyond them.
  std::optional<Exemplar> Get(size_t bucket) const;

 private:
  const std::vector<double> bounds_;
  std::vector<ExemplarSlot> slots_;
};

// The exemplars of a process, beside its registry, since prometheus-cpp knows none. Thread-safe.
class Exemplars {
 public:
  // Room for a series, for as long as this lives or until it is removed. What `labels` says is the
  // whole set of the series' labels.
  ExemplarSlots* Add(const std::string& name, const prometheus::Labels& labels,
                     std::vector<double> bounds);
  void Remove(const std::string& name, const prometheus::Labels& labels);

  // By bucket of the series (one for a counter); empty when the series has none.
  std::vector<std::optional<Exemplar>> Find(const std::string& name,
                                            const prometheus::Labels& labels, size_t buckets) const;

 private:
  struct Series {
    Series(prometheus::Labels of, std::vector<double> bounds)
        : labels(std::move(of)), slots(std::move(bounds)) {}

    prometheus::Labels labels;
    ExemplarSlots slots;
  };
  mutable absl::Mutex mutex_;
  std::map<std::string, std::list<Series>> series_of_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_EXEMPLARS_H_
