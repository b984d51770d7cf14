// Histograms as rooms use them: no value spoils the sum, and a value may bring its trace along.
#ifndef EXPERTMESH_COMMON_TELEMETRY_HISTOGRAM_H_
#define EXPERTMESH_COMMON_TELEMETRY_HISTOGRAM_H_

#include <prometheus/histogram.h>

#include <algorithm>
#include <cmath>

#include "absl/time/time.h"
#include "common/telemetry/exemplars.h"
#include "common/trace/trace_context.h"

namespace expertmesh::telemetry {

// A handle, for as long as its registry lives. Thread-safe; allocates nothing.
class Histogram {
 public:
  explicit Histogram(prometheus::Histogram* histogram) : histogram_(histogram) {}

  // A value that is not finite is left out: it would be in the sum for ever.
  void Observe(double value) const {
    if (std::isfinite(value)) {
      histogram_->Observe(value);
    }
  }
  // In seconds. A clock that was set back makes it zero.
  void Observe(absl::Duration duration) const {
    Observe(std::max(absl::ToDoubleSeconds(duration), 0.0));
  }

 private:
  prometheus::Histogram* histogram_;
};

// The same with exemplars. Their series is in the registry without them, and with them at GET
// /metrics where OpenMetrics is asked for.
class TracedHistogram {
 public:
  // `slots` has the histogram's buckets, and outlives it.
  TracedHistogram(Histogram histogram, ExemplarSlots* slots)
      : histogram_(histogram), slots_(slots) {}

  void Observe(absl::Duration duration) const { histogram_.Observe(duration); }
  // Seen in `trace`, at `now` of the calendar. The trace is one that is kept, else its id leads
  // nowhere; one that is not valid is left out.
  void Observe(absl::Duration duration, const trace::TraceContext& trace, absl::Time now) const {
    histogram_.Observe(duration);
    const double seconds = std::max(absl::ToDoubleSeconds(duration), 0.0);
    if (std::isfinite(seconds)) {
      slots_->Put({trace, seconds, now});
    }
  }

 private:
  Histogram histogram_;
  ExemplarSlots* slots_;
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_HISTOGRAM_H_
