// Where spans go once they are made: a store, an exporter.
#ifndef EXPERTMESH_COMMON_TRACE_SPAN_SINK_H_
#define EXPERTMESH_COMMON_TRACE_SPAN_SINK_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "common/trace/resource.h"

namespace expertmesh::trace {

// Spans of one process, as SpanWriter writes them.
struct SpanGroup {
  // The process; not null, and the same object for all spans of it.
  ResourcePtr resource;
  std::string bytes;
  uint32_t count = 0;
};

// Thread-safe. Never blocks: what there is no room for is dropped and counted.
class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void Add(absl::Span<const SpanGroup> groups) = 0;
};

}  // namespace expertmesh::trace

#endif  // EXPERTMESH_COMMON_TRACE_SPAN_SINK_H_
