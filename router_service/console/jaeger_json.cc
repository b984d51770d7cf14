#include "router_service/console/jaeger_json.h"

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace expertmesh::console {
namespace {

using internal::otlp::AnyValue;
using internal::otlp::KeyValue;
using internal::otlp::ResourceSpans;
using internal::otlp::ScopeSpans;
using internal::otlp::Span;
using internal::otlp::TracesData;
using nlohmann::json;

constexpr uint64_t kNanosPerMicro = 1000;
constexpr char kServiceName[] = "service.name";

json Tag(const std::string& key, const char* type, json value) {
  return {{"key", key}, {"type", type}, {"value", std::move(value)}};
}

json TagOf(const KeyValue& attribute) {
  const AnyValue& value = attribute.value();
  switch (value.value_case()) {
    case AnyValue::kBoolValue:
      return Tag(attribute.key(), "bool", value.bool_value());
    case AnyValue::kIntValue:
      return Tag(attribute.key(), "int64", value.int_value());
    case AnyValue::kDoubleValue:
      return Tag(attribute.key(), "float64", value.double_value());
    default:
      return Tag(attribute.key(), "string", value.string_value());
  }
}

template <typename Attributes>
json TagsOf(const Attributes& attributes) {
  json tags = json::array();
  for (const KeyValue& attribute : attributes) {
    tags.push_back(TagOf(attribute));
  }
  return tags;
}

json Reference(const char* type, const std::string& trace_id, const std::string& span_id) {
  return {{"refType", type},
          {"traceID", absl::BytesToHexString(trace_id)},
          {"spanID", absl::BytesToHexString(span_id)}};
}

json ReferencesOf(const Span& span) {
  json references = json::array();
  if (!span.parent_span_id().empty()) {
    references.push_back(Reference("CHILD_OF", span.trace_id(), span.parent_span_id()));
  }
  for (const Span::Link& link : span.links()) {
    references.push_back(Reference("FOLLOWS_FROM", link.trace_id(), link.span_id()));
  }
  return references;
}

json LogsOf(const Span& span) {
  json logs = json::array();
  for (const Span::Event& event : span.events()) {
    json fields = TagsOf(event.attributes());
    fields.insert(fields.begin(), Tag("event", "string", event.name()));
    logs.push_back(
        {{"timestamp", event.time_unix_nano() / kNanosPerMicro}, {"fields", std::move(fields)}});
  }
  return logs;
}

json SpanTags(const Span& span, const ScopeSpans& scope) {
  json tags = TagsOf(span.attributes());
  if (const std::string kind = KindOf(span); !kind.empty()) {
    tags.push_back(Tag("span.kind", "string", kind));
  }
  if (span.status().code() != internal::otlp::Status::STATUS_CODE_UNSET) {
    const bool failed = span.status().code() == internal::otlp::Status::STATUS_CODE_ERROR;
    tags.push_back(Tag("otel.status_code", "string", failed ? "ERROR" : "OK"));
    if (failed) {
      tags.push_back(Tag("error", "bool", true));
    }
    if (!span.status().message().empty()) {
      tags.push_back(Tag("otel.status_description", "string", span.status().message()));
    }
  }
  if (!span.trace_state().empty()) {
    tags.push_back(Tag("w3c.tracestate", "string", span.trace_state()));
  }
  if (!scope.scope().name().empty()) {
    tags.push_back(Tag("otel.scope.name", "string", scope.scope().name()));
  }
  return tags;
}

json SpanOf(const Span& span, const ScopeSpans& scope, const std::string& process) {
  const uint64_t start_us = span.start_time_unix_nano() / kNanosPerMicro;
  return {{"traceID", absl::BytesToHexString(span.trace_id())},
          {"spanID", absl::BytesToHexString(span.span_id())},
          {"operationName", span.name()},
          {"references", ReferencesOf(span)},
          {"startTime", start_us},
          {"duration", (span.end_time_unix_nano() - span.start_time_unix_nano()) / kNanosPerMicro},
          {"tags", SpanTags(span, scope)},
          {"logs", LogsOf(span)},
          {"processID", process},
          {"warnings", nullptr}};
}

json ProcessOf(const ResourceSpans& process) {
  json tags = json::array();
  for (const KeyValue& attribute : process.resource().attributes()) {
    if (attribute.key() != kServiceName) {
      tags.push_back(TagOf(attribute));
    }
  }
  return {{"serviceName", ServiceOf(process)}, {"tags", std::move(tags)}};
}

}  // namespace

std::string ServiceOf(const ResourceSpans& process) {
  for (const KeyValue& attribute : process.resource().attributes()) {
    if (attribute.key() == kServiceName) {
      return attribute.value().string_value();
    }
  }
  return "unknown_service";
}

std::string KindOf(const Span& span) {
  if (span.kind() == Span::SPAN_KIND_UNSPECIFIED || !Span::SpanKind_IsValid(span.kind())) {
    return "";
  }
  const std::string name = Span::SpanKind_Name(span.kind());
  return absl::AsciiStrToLower(name.substr(name.rfind('_') + 1));
}

std::string TextOf(const AnyValue& value) {
  switch (value.value_case()) {
    case AnyValue::kBoolValue:
      return value.bool_value() ? "true" : "false";
    case AnyValue::kIntValue:
      return absl::StrCat(value.int_value());
    case AnyValue::kDoubleValue:
      return absl::StrCat(value.double_value());
    default:
      return value.string_value();
  }
}

json ToJaegerTrace(const TracesData& data) {
  json spans = json::array();
  json processes = json::object();
  std::string trace_id;
  for (const ResourceSpans& process : data.resource_spans()) {
    const std::string name = absl::StrCat("p", processes.size() + 1);
    processes[name] = ProcessOf(process);
    for (const ScopeSpans& scope : process.scope_spans()) {
      for (const Span& span : scope.spans()) {
        trace_id = absl::BytesToHexString(span.trace_id());
        spans.push_back(SpanOf(span, scope, name));
      }
    }
  }
  return {{"traceID", trace_id},
          {"spans", std::move(spans)},
          {"processes", std::move(processes)},
          {"warnings", nullptr}};
}

json ToJaegerDependencies(const std::vector<TracesData>& traces) {
  std::map<std::pair<std::string, std::string>, uint64_t> calls;
  for (const TracesData& trace : traces) {
    std::map<std::string, std::string> service_of_span;
    for (const ResourceSpans& process : trace.resource_spans()) {
      for (const ScopeSpans& scope : process.scope_spans()) {
        for (const Span& span : scope.spans()) {
          service_of_span[span.span_id()] = ServiceOf(process);
        }
      }
    }
    for (const ResourceSpans& process : trace.resource_spans()) {
      for (const ScopeSpans& scope : process.scope_spans()) {
        for (const Span& span : scope.spans()) {
          const auto parent = service_of_span.find(span.parent_span_id());
          if (parent != service_of_span.end() && parent->second != ServiceOf(process)) {
            ++calls[{parent->second, ServiceOf(process)}];
          }
        }
      }
    }
  }
  json dependencies = json::array();
  for (const auto& [services, count] : calls) {
    dependencies.push_back(
        {{"parent", services.first}, {"child", services.second}, {"callCount", count}});
  }
  return dependencies;
}

}  // namespace expertmesh::console
