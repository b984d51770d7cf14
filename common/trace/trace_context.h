// W3C trace context: where in which trace something happens, as `traceparent` and `tracestate`
// carry it between processes (W3C Trace Context Level 2).
#ifndef EXPERTMESH_COMMON_TRACE_TRACE_CONTEXT_H_
#define EXPERTMESH_COMMON_TRACE_TRACE_CONTEXT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh::trace {

// 16 bytes, big-endian; not valid while all of them are 0.
struct TraceId {
  uint64_t high = 0;
  uint64_t low = 0;

  bool valid() const { return (high | low) != 0; }
  friend bool operator==(const TraceId& a, const TraceId& b) {
    return a.high == b.high && a.low == b.low;
  }
  template <typename H>
  friend H AbslHashValue(H h, const TraceId& id) {
    return H::combine(std::move(h), id.high, id.low);
  }
};

// 8 bytes, big-endian; 0 is none.
using SpanId = uint64_t;

// The flags that there are. Others are not passed on.
inline constexpr uint8_t kSampledFlag = 0x01;
// The last 7 bytes of the trace id are random, so that samplers may compare them.
inline constexpr uint8_t kRandomFlag = 0x02;

// A span, as those refer to it that come after it. Valid when both ids are.
struct TraceContext {
  TraceId trace_id;
  SpanId span_id = 0;
  uint8_t flags = 0;

  bool valid() const { return trace_id.valid() && span_id != 0; }
  bool sampled() const { return (flags & kSampledFlag) != 0; }
};

// Lower-case hexadecimal, the form of everything that people and other programs read.
std::string ToHex(const TraceId& id);
std::string ToHex(SpanId id);
// Accepts upper case too, for what people type. Empty for anything but 32 digits that are not all
// 0.
std::optional<TraceId> ParseTraceId(absl::string_view hex);

// Length of a `traceparent` of version 00.
inline constexpr size_t kTraceparentLength = 55;

// What `traceparent` says; an invalid context if it does not follow the standard, in which case its
// tracestate is not to be used either. Never allocates.
TraceContext ParseTraceparent(absl::string_view traceparent);

// `context`, which is valid, as a traceparent of version 00.
std::array<char, kTraceparentLength> FormatTraceparent(const TraceContext& context);

// What of `tracestate` goes on: nothing unless it follows the standard, with at most 32 members and
// no key twice; of more than 2048 characters the whole members at its beginning that fit. A piece
// of it; never allocates.
absl::string_view TracestateToPass(absl::string_view tracestate);

}  // namespace expertmesh::trace

#endif  // EXPERTMESH_COMMON_TRACE_TRACE_CONTEXT_H_
