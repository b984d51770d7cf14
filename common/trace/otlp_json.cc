#include "common/trace/otlp_json.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace expertmesh::trace {
namespace {

using nlohmann::json;

json ValueOf(const internal::otlp::AnyValue& value) {
  switch (value.value_case()) {
    case internal::otlp::AnyValue::kStringValue:
      return {{"stringValue", value.string_value()}};
    case internal::otlp::AnyValue::kBoolValue:
      return {{"boolValue", value.bool_value()}};
    case internal::otlp::AnyValue::kIntValue:
      return {{"intValue", absl::StrCat(value.int_value())}};
    case internal::otlp::AnyValue::kDoubleValue:
      return {{"doubleValue", value.double_value()}};
    case internal::otlp::AnyValue::VALUE_NOT_SET:
      break;
  }
  return json::object();
}

template <typename Attributes>
json AttributesOf(const Attributes& attributes) {
  json list = json::array();
  for (const internal::otlp::KeyValue& attribute : attributes) {
    list.push_back({{"key", attribute.key()}, {"value", ValueOf(attribute.value())}});
  }
  return list;
}

json LinksOf(const internal::otlp::Span& span) {
  json links = json::array();
  for (const internal::otlp::Span::Link& link : span.links()) {
    links.push_back({{"traceId", absl::BytesToHexString(link.trace_id())},
                     {"spanId", absl::BytesToHexString(link.span_id())},
                     {"flags", link.flags()},
                     {"attributes", AttributesOf(link.attributes())}});
  }
  return links;
}

json EventsOf(const internal::otlp::Span& span) {
  json events = json::array();
  for (const internal::otlp::Span::Event& event : span.events()) {
    events.push_back({{"timeUnixNano", absl::StrCat(event.time_unix_nano())},
                      {"name", event.name()},
                      {"attributes", AttributesOf(event.attributes())}});
  }
  return events;
}

json SpanOf(const internal::otlp::Span& span) {
  json written = {{"traceId", absl::BytesToHexString(span.trace_id())},
                  {"spanId", absl::BytesToHexString(span.span_id())},
                  {"parentSpanId", absl::BytesToHexString(span.parent_span_id())},
                  {"traceState", span.trace_state()},
                  {"flags", span.flags()},
                  {"name", span.name()},
                  {"kind", static_cast<int>(span.kind())},
                  {"startTimeUnixNano", absl::StrCat(span.start_time_unix_nano())},
                  {"endTimeUnixNano", absl::StrCat(span.end_time_unix_nano())},
                  {"attributes", AttributesOf(span.attributes())},
                  {"events", EventsOf(span)},
                  {"links", LinksOf(span)},
                  {"droppedLinksCount", span.dropped_links_count()},
                  {"status", json::object()}};
  if (span.has_status()) {
    written["status"] = {{"code", static_cast<int>(span.status().code())},
                         {"message", span.status().message()}};
  }
  return written;
}

}  // namespace

std::string ToOtlpJson(const internal::otlp::TracesData& data) {
  json processes = json::array();
  for (const internal::otlp::ResourceSpans& process : data.resource_spans()) {
    json scopes = json::array();
    for (const internal::otlp::ScopeSpans& scope : process.scope_spans()) {
      json spans = json::array();
      for (const internal::otlp::Span& span : scope.spans()) {
        spans.push_back(SpanOf(span));
      }
      scopes.push_back({{"scope", {{"name", scope.scope().name()}}}, {"spans", std::move(spans)}});
    }
    processes.push_back(
        {{"resource", {{"attributes", AttributesOf(process.resource().attributes())}}},
         {"scopeSpans", std::move(scopes)}});
  }
  return json{{"resourceSpans", std::move(processes)}}.dump(-1, ' ', false,
                                                            json::error_handler_t::replace);
}

}  // namespace expertmesh::trace
