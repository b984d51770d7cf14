// Spans as tests read them: parsed by code that protoc made.
#ifndef EXPERTMESH_TESTS_SUPPORT_SPAN_RECORDER_H_
#define EXPERTMESH_TESTS_SUPPORT_SPAN_RECORDER_H_

#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/trace/otlp.pb.h"
#include "common/trace/span_sink.h"

namespace expertmesh {

// A span with its attributes as text: numbers in decimal, "true", "false".
struct RecordedSpan {
  internal::otlp::Span span;
  std::map<std::string, std::string> attributes;
  // The service.name of its resource.
  std::string service;

  std::string name() const { return span.name(); }
  std::string trace_id() const { return absl::BytesToHexString(span.trace_id()); }
  std::string span_id() const { return absl::BytesToHexString(span.span_id()); }
  std::string parent_id() const { return absl::BytesToHexString(span.parent_span_id()); }
  std::string Attribute(const std::string& key) const {
    const auto found = attributes.find(key);
    return found == attributes.end() ? "" : found->second;
  }
};

inline std::string TextOf(const internal::otlp::AnyValue& value) {
  if (value.has_string_value()) {
    return value.string_value();
  }
  return value.has_bool_value() ? (value.bool_value() ? "true" : "false")
                                : absl::StrCat(value.int_value());
}

// Thread-safe.
class SpanRecorder final : public trace::SpanSink {
 public:
  void Add(absl::Span<const trace::SpanGroup> groups) override {
    absl::MutexLock lock(&mutex_);
    for (const trace::SpanGroup& group : groups) {
      internal::otlp::ScopeSpans parsed;
      EXPERTMESH_CHECK(parsed.ParseFromString(group.bytes));
      EXPERTMESH_CHECK(parsed.spans_size() == static_cast<int>(group.count));
      internal::otlp::Resource resource;
      EXPERTMESH_CHECK(resource.ParseFromString(group.resource->bytes));
      for (const internal::otlp::Span& span : parsed.spans()) {
        spans_.push_back(Record(span, resource));
      }
    }
  }

  std::vector<RecordedSpan> spans() const {
    absl::MutexLock lock(&mutex_);
    return spans_;
  }
  std::vector<RecordedSpan> Named(const std::string& name) const {
    std::vector<RecordedSpan> found;
    for (RecordedSpan& span : spans()) {
      if (span.name() == name) {
        found.push_back(std::move(span));
      }
    }
    return found;
  }

 private:
  static RecordedSpan Record(const internal::otlp::Span& span,
                             const internal::otlp::Resource& resource) {
    RecordedSpan recorded{span, {}, ""};
    for (const internal::otlp::KeyValue& attribute : span.attributes()) {
      EXPERTMESH_CHECK(
          recorded.attributes.emplace(attribute.key(), TextOf(attribute.value())).second);
    }
    for (const internal::otlp::KeyValue& attribute : resource.attributes()) {
      if (attribute.key() == "service.name") {
        recorded.service = attribute.value().string_value();
      }
    }
    return recorded;
  }

  mutable absl::Mutex mutex_;
  std::vector<RecordedSpan> spans_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_SPAN_RECORDER_H_
