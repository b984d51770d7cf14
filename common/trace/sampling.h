// New ids, and which new traces are kept: probability sampling of OpenTelemetry, on the random part
// of the trace id, so that all who compare it with the same threshold decide alike.
#ifndef EXPERTMESH_COMMON_TRACE_SAMPLING_H_
#define EXPERTMESH_COMMON_TRACE_SAMPLING_H_

#include <cstdint>
#include <string>

#include "common/trace/trace_context.h"

namespace expertmesh::trace {

// Random and valid. Never allocates; thread-safe.
TraceId NewTraceId();
SpanId NewSpanId();

// Constant after construction.
class RatioSampler {
 public:
  // Keeps `ratio` of all traces, at least 0 (none) and at most 1 (all).
  explicit RatioSampler(double ratio);

  // Whether a new trace of this random id is kept.
  bool Keeps(const TraceId& id) const { return (id.low & kRandomBits) >= threshold_; }

  // The tracestate of a new trace that is kept: "ot=th:" and the threshold, by which others see
  // what share this is of all.
  const std::string& tracestate() const { return tracestate_; }

 private:
  // The last 7 bytes of an id.
  static constexpr uint64_t kRandomBits = (uint64_t{1} << 56) - 1;

  // 2^56 keeps none.
  uint64_t threshold_;
  std::string tracestate_;
};

}  // namespace expertmesh::trace

#endif  // EXPERTMESH_COMMON_TRACE_SAMPLING_H_
