#include "client/cpp/command/top_reading.h"

#include <algorithm>
#include <cstddef>

#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

using internal::otlp::Span;

constexpr absl::Duration kWindow = absl::Seconds(10);
constexpr uint32_t kTraces = 20;
constexpr size_t kLargeTrace = size_t{1} << 20;
// The router's name of a batch's own trace, which is no request.
constexpr char kBatch[] = "expertmesh.batch";
constexpr char kDispatch[] = "expertmesh.dispatch";

absl::Duration LengthOf(const Span& span) {
  const uint64_t start = span.start_time_unix_nano();
  return absl::Nanoseconds(std::max(span.end_time_unix_nano(), start) - start);
}

absl::Duration MicrosOf(const Span& span, const char* key) {
  for (const internal::otlp::KeyValue& attribute : span.attributes()) {
    if (attribute.key() == key) {
      return absl::Microseconds(std::max<int64_t>(0, attribute.value().int_value()));
    }
  }
  return absl::ZeroDuration();
}

}  // namespace

std::map<int64_t, RequestTimes> StageTimesOf(const internal::otlp::TracesData& data) {
  std::map<std::string, const Span*> spans;
  std::vector<const Span*> dispatches;
  for (const internal::otlp::ResourceSpans& process : data.resource_spans()) {
    for (const internal::otlp::ScopeSpans& scope : process.scope_spans()) {
      for (const Span& span : scope.spans()) {
        spans[span.span_id()] = &span;
        if (span.name() == kDispatch) {
          dispatches.push_back(&span);
        }
      }
    }
  }
  std::map<int64_t, RequestTimes> requests;
  for (const Span* dispatch : dispatches) {
    const auto request = spans.find(dispatch->parent_span_id());
    if (request == spans.end()) {
      continue;
    }
    const absl::Duration route = MicrosOf(*dispatch, "expertmesh.route_us");
    requests[static_cast<int64_t>(request->second->start_time_unix_nano())] = {
        .queue = MicrosOf(*dispatch, "expertmesh.queue_us"),
        .route = route,
        .nodes = std::max(absl::ZeroDuration(), LengthOf(*dispatch) - route),
        .combine = MicrosOf(*dispatch, "expertmesh.combine_us"),
        .all = LengthOf(*request->second)};
  }
  return requests;
}

absl::StatusOr<TopReading> TopReader::Read() {
  TopReading reading;
  reading.time = absl::Now();
  ASSIGN_OR_RETURN(reading.topology, client_->Topology());
  reading.nodes_at = Clock::Real()->Now();
  ASSIGN_OR_RETURN(reading.since_start, client_->GetLoad({.mesh = mesh_}));
  reading.layers_at = Clock::Real()->Now();
  ASSIGN_OR_RETURN(reading.recent, client_->GetLoad({.mesh = mesh_, .window = kWindow}));
  reading.stages = ReadStages();
  return reading;
}

RecentStages TopReader::ReadStages() {
  RecentStages stages;
  const auto listed = client_->ListTraces(kTraces);
  if (!listed.ok()) {
    stages.status = listed.status();
    return stages;
  }
  std::map<Request, std::optional<RequestTimes>> before;
  before.swap(known_);
  std::set<std::string> grown;
  std::set<std::string> ids;
  for (const client::TraceSummary& trace : *listed) {
    const Request request{trace.trace_id, absl::ToUnixNanos(trace.start)};
    const auto found = before.find(request);
    known_[request] = found == before.end() ? std::nullopt : found->second;
    ids.insert(trace.trace_id);
    if (found == before.end() && trace.name != kBatch && !large_.contains(trace.trace_id)) {
      grown.insert(trace.trace_id);
    }
  }
  for (const std::string& id : grown) {
    ReadTrace(id);
  }
  for (const client::TraceSummary& trace : *listed) {
    if (const auto& times = known_[{trace.trace_id, absl::ToUnixNanos(trace.start)}]) {
      stages.requests.push_back(*times);
      ++stages.kept[trace.kept];
    }
  }
  std::erase_if(large_, [&ids](const std::string& id) { return !ids.contains(id); });
  return stages;
}

void TopReader::ReadTrace(const std::string& id) {
  // One that is forgotten meanwhile is left out.
  const absl::StatusOr<std::string> bytes = client_->GetTrace(id);
  internal::otlp::TracesData data;
  if (!bytes.ok() || !data.ParseFromString(*bytes)) {
    return;
  }
  if (bytes->size() > kLargeTrace) {
    large_.insert(id);
  }
  for (const auto& [arrival, times] : StageTimesOf(data)) {
    if (const auto known = known_.find({id, arrival}); known != known_.end()) {
      known->second = times;
    }
  }
}

}  // namespace expertmesh::command
