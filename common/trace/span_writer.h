// Writes spans as bytes of OpenTelemetry's protocol (OTLP Span), straight
// into the memory that is sent and kept: a span costs no object and, with memory left, no
// allocation.
#ifndef EXPERTMESH_COMMON_TRACE_SPAN_WRITER_H_
#define EXPERTMESH_COMMON_TRACE_SPAN_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/trace/trace_context.h"

namespace expertmesh::trace {

// As in the protocol.
enum class SpanKind { kInternal = 1, kServer = 2, kClient = 3 };

// What every span has.
struct SpanHead {
  absl::string_view name;
  SpanKind kind = SpanKind::kInternal;
  TraceContext context;
  // In the same trace; 0: the span is its first.
  SpanId parent = 0;
  // The parent is of another process.
  bool remote_parent = false;
  absl::string_view tracestate;
  absl::Time start;
  absl::Time end;
};

// Appends one attribute, as field number `field` of the message that is being written. Texts are
// cleaned and cut as PeerText does.
void AppendAttribute(uint32_t field, absl::string_view key, absl::string_view value,
                     std::string* out);
void AppendAttribute(uint32_t field, absl::string_view key, int64_t value, std::string* out);
void AppendAttribute(uint32_t field, absl::string_view key, bool value, std::string* out);

// Appends one span to the bytes of an OTLP ScopeSpans. Exists for as long
// as the span is written. Attributes belong to the link or event that was begun last, if one was.
class SpanWriter {
 public:
  // `out` must outlive it.
  SpanWriter(const SpanHead& head, std::string* out);
  ~SpanWriter();
  SpanWriter(const SpanWriter&) = delete;
  SpanWriter& operator=(const SpanWriter&) = delete;

  // No key twice.
  SpanWriter& Text(absl::string_view key, absl::string_view value) { return Add(key, value); }
  SpanWriter& Number(absl::string_view key, int64_t value) { return Add(key, value); }
  SpanWriter& Flag(absl::string_view key, bool value) { return Add(key, value); }

  // A span of this or another trace that this one has to do with.
  SpanWriter& Link(const TraceContext& to);
  SpanWriter& DroppedLinks(uint32_t count);
  SpanWriter& Event(absl::string_view name, absl::Time when);
  // The span failed; `message` may be empty.
  SpanWriter& Error(absl::string_view message);

 private:
  template <typename Value>
  SpanWriter& Add(absl::string_view key, const Value& value) {
    AppendAttribute(attribute_field_, key, value, out_);
    return *this;
  }
  void EndPart();

  std::string* const out_;
  // Where the length belongs of the span, and of the link or event being written; 0: none.
  size_t span_length_;
  size_t part_length_ = 0;
  uint32_t attribute_field_;
};

// Appends ResourceSpans, field 1 of TracesData and ExportTraceServiceRequest: `spans` of the
// process that `resource` describes, both encoded.
void AppendResourceSpans(absl::string_view resource, absl::string_view spans, std::string* out);

}  // namespace expertmesh::trace

#endif  // EXPERTMESH_COMMON_TRACE_SPAN_WRITER_H_
