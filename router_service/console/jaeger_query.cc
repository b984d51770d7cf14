#include "router_service/console/jaeger_query.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "router_service/console/jaeger_json.h"

namespace expertmesh::console {
namespace {

using internal::otlp::KeyValue;
using internal::otlp::ResourceSpans;
using internal::otlp::ScopeSpans;
using internal::otlp::Span;
using telemetry::HttpRequest;

// More would have to be looked through for every question.
constexpr size_t kMostTraces = 1000;

absl::StatusOr<absl::Time> TimeOf(const HttpRequest& request, const std::string& name,
                                  absl::Time absent) {
  const std::string text = request.Parameter(name).value_or("");
  int64_t micros = 0;
  if (text.empty()) {
    return absent;
  }
  if (!absl::SimpleAtoi(text, &micros)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": use microseconds since 1970"));
  }
  return absl::FromUnixMicros(micros);
}

absl::StatusOr<absl::Duration> DurationOf(const HttpRequest& request, const std::string& name,
                                          absl::Duration absent) {
  const std::string text = request.Parameter(name).value_or("");
  absl::Duration duration;
  if (text.empty()) {
    return absent;
  }
  if (!absl::ParseDuration(text, &duration)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": use a duration, such as 1.5ms"));
  }
  return duration;
}

absl::StatusOr<std::map<std::string, std::string>> TagsOf(const HttpRequest& request) {
  std::map<std::string, std::string> tags;
  if (request.Parameter("tag").has_value()) {
    return absl::InvalidArgumentError("tag: use tags={\"key\":\"value\"}");
  }
  const std::string text = request.Parameter("tags").value_or("");
  if (text.empty()) {
    return tags;
  }
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("tags: use a JSON object of texts");
  }
  for (const auto& [key, value] : json.items()) {
    tags[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return tags;
}

template <typename Attributes>
bool Has(const Attributes& attributes, const std::string& key, const std::string& value) {
  return std::any_of(attributes.begin(), attributes.end(), [&](const KeyValue& attribute) {
    return attribute.key() == key && TextOf(attribute.value()) == value;
  });
}

// What a span is searched by beside its attributes.
bool HasOfItsOwn(const Span& span, const std::string& key, const std::string& value) {
  const bool failed = span.status().code() == internal::otlp::Status::STATUS_CODE_ERROR;
  return (key == "error" && value == (failed ? "true" : "false")) ||
         (key == "span.kind" && value == KindOf(span));
}

bool Matches(const JaegerQuery& query, const Span& span, const ResourceSpans& process) {
  const absl::Time start = absl::FromUnixNanos(static_cast<int64_t>(span.start_time_unix_nano()));
  const absl::Duration duration =
      absl::FromUnixNanos(static_cast<int64_t>(span.end_time_unix_nano())) - start;
  if ((!query.operation.empty() && span.name() != query.operation) || start < query.start ||
      start > query.end || duration < query.shortest || duration > query.longest) {
    return false;
  }
  return std::all_of(query.tags.begin(), query.tags.end(), [&](const auto& tag) {
    return Has(span.attributes(), tag.first, tag.second) ||
           Has(process.resource().attributes(), tag.first, tag.second) ||
           HasOfItsOwn(span, tag.first, tag.second);
  });
}

}  // namespace

absl::StatusOr<JaegerQuery> ParseJaegerQuery(const HttpRequest& request) {
  JaegerQuery query;
  query.service = request.Parameter("service").value_or("");
  if (query.service.empty()) {
    return absl::InvalidArgumentError("service is missing; /api/services lists them");
  }
  query.operation = request.Parameter("operation").value_or("");
  ASSIGN_OR_RETURN(query.tags, TagsOf(request));
  ASSIGN_OR_RETURN(query.start, TimeOf(request, "start", query.start));
  ASSIGN_OR_RETURN(query.end, TimeOf(request, "end", query.end));
  ASSIGN_OR_RETURN(query.shortest, DurationOf(request, "minDuration", query.shortest));
  ASSIGN_OR_RETURN(query.longest, DurationOf(request, "maxDuration", query.longest));
  if (const std::string limit = request.Parameter("limit").value_or("");
      !limit.empty() && !absl::SimpleAtoi(limit, &query.limit)) {
    return absl::InvalidArgumentError("limit: use a whole number");
  }
  query.limit = std::min(query.limit, kMostTraces);
  return query;
}

bool Matches(const JaegerQuery& query, const internal::otlp::TracesData& trace) {
  for (const ResourceSpans& process : trace.resource_spans()) {
    if (ServiceOf(process) != query.service) {
      continue;
    }
    for (const ScopeSpans& scope : process.scope_spans()) {
      for (const Span& span : scope.spans()) {
        if (Matches(query, span, process)) {
          return true;
        }
      }
    }
  }
  return false;
}

}  // namespace expertmesh::console
