#include "router_service/tracing/spans_of_batch.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/trace/span_writer.h"

namespace expertmesh::tracing {
namespace {

using trace::SpanGroup;
using trace::SpanHead;
using trace::SpanId;
using trace::SpanKind;
using trace::SpanWriter;
using trace::TraceContext;

constexpr char kUnary[] = "expertmesh.v1.Router/Forward";
constexpr char kStream[] = "expertmesh.v1.Router/ForwardStream";
constexpr char kCompute[] = "expertmesh.internal.v1.Expert/Compute";
constexpr char kBatch[] = "expertmesh.batch";
// What the spans of a process take in a trace of few.
constexpr size_t kUsualBytes = 1500;
// Its call, its queue and its computation.
constexpr uint32_t kNodeSpans = 3;

// "DEADLINE_EXCEEDED", as gRPC spells it and conventions want it.
std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

int64_t Signed(uint64_t value) { return static_cast<int64_t>(value); }

uint32_t SpansOfRequest(const TraceRecord& record) { return record.dispatched ? 2 : 1; }

uint32_t SpansOfCalls(const TraceRecord& record) {
  uint32_t spans = 0;
  for (const CallRecord& call : record.calls) {
    spans += call.code == absl::StatusCode::kOk ? 1 + kNodeSpans : 1;
  }
  return spans;
}

// Makes the spans of one record.
class SpanMaker {
 public:
  SpanMaker(const TraceRecord& record, const trace::ResourcePtr& router)
      : record_(record),
        router_(router),
        batch_id_(ToHex(record.batch.valid() ? record.batch.trace_id
                                             : record.requests.front().span.trace_id)) {}

  std::vector<TraceSpans> Make() {
    std::vector<TraceSpans> made;
    made.reserve(record_.requests.size() + 1);
    for (const RequestRecord& request : record_.requests) {
      TraceSpans& spans = made.emplace_back();
      spans.id = request.span.trace_id;
      SpanGroup* const group = GroupOf(router_, &spans);
      AddRequest(request, group);
      if (record_.dispatched) {
        AddDispatch(request, group);
      }
      if (&request == &record_.requests.front()) {
        for (const CallRecord& call : record_.calls) {
          AddCall(request, call, &spans);
        }
      }
    }
    if (record_.batch.valid()) {
      made.push_back(Batch());
    }
    return made;
  }

 private:
  absl::Time Calendar(absl::Time time) const { return time + record_.to_calendar; }

  SpanHead Head(absl::string_view name, SpanKind kind, const TraceContext& context, SpanId parent,
                absl::Time start, absl::Time end) const {
    SpanHead head;
    head.name = name;
    head.kind = kind;
    head.context = context;
    head.parent = parent;
    head.start = Calendar(start);
    head.end = Calendar(end);
    return head;
  }

  // The same trace as `request`, another span.
  static TraceContext In(const RequestRecord& request, SpanId span) {
    return {request.span.trace_id, span, request.span.flags};
  }

  // The spans of `resource` in a trace: the last group, if it is theirs.
  static SpanGroup* GroupOf(const trace::ResourcePtr& resource, TraceSpans* spans) {
    for (SpanGroup& group : spans->groups) {
      if (group.resource == resource) {
        return &group;
      }
    }
    spans->groups.push_back({resource, {}, 0});
    spans->groups.back().bytes.reserve(kUsualBytes);
    return &spans->groups.back();
  }

  void AddRequest(const RequestRecord& request, SpanGroup* group) const {
    const absl::string_view name = request.streamed ? kStream : kUnary;
    SpanHead head = Head(name, SpanKind::kServer, request.span, request.parent.span_id,
                         request.arrival, request.answered);
    head.remote_parent = true;
    head.tracestate = record_.Text(request.tracestate);
    SpanWriter span(head, &group->bytes);
    ++group->count;
    span.Text("rpc.system.name", "grpc").Text("rpc.method", name);
    span.Text("rpc.status_code", CodeName(request.code));
    span.Number("expertmesh.layer", record_.layer);
    span.Number("expertmesh.tokens", Signed(request.tokens));
    if (const absl::string_view peer = record_.Text(request.peer); !peer.empty()) {
      span.Text("network.peer.address", peer);
    }
    if (request.streamed) {
      span.Number("expertmesh.request_id", Signed(request.request_id));
    }
    AddKeep(request.keep, &span);
    if (request.code != absl::StatusCode::kOk) {
      span.Text("error.type", CodeName(request.code));
    }
    if (IsServersFault(request.code)) {
      span.Error("");
    }
  }

  // A collector that samples by itself keeps what is marked so.
  static void AddKeep(Keep keep, SpanWriter* span) {
    if (keep != Keep::kSampled) {
      span->Text("expertmesh.keep", NameOf(keep));
    }
  }

  void AddBatchFacts(SpanWriter* span) const {
    span->Text("expertmesh.batch.id", batch_id_);
    span->Number("expertmesh.batch.requests", record_.batch_requests);
    span->Number("expertmesh.batch.tokens", Signed(record_.batch_tokens));
    span->Number("expertmesh.layer", record_.layer);
    span->Number("expertmesh.top_k", record_.top_k);
    span->Number("expertmesh.epoch", Signed(record_.epoch));
    span->Number("expertmesh.calls", Signed(record_.calls.size()));
  }

  void AddDispatch(const RequestRecord& request, SpanGroup* group) const {
    SpanWriter span(Head("expertmesh.dispatch", SpanKind::kInternal, In(request, request.dispatch),
                         request.span.span_id, record_.closed, record_.received),
                    &group->bytes);
    ++group->count;
    AddBatchFacts(&span);
    span.Number("expertmesh.queue_us", Signed(ToMicros(record_.closed - request.arrival)));
    span.Number("expertmesh.route_us", Signed(ToMicros(record_.planned - record_.closed)));
    span.Number("expertmesh.combine_us", Signed(ToMicros(record_.answered - record_.received)));
    for (const CallRecord& call : record_.calls) {
      if (call.attempt > 1) {
        span.Event(call.second_opinion ? "expertmesh.second_opinion" : "expertmesh.retry",
                   Calendar(call.sent));
        span.Text("expertmesh.node", call.node->node_id).Number("expertmesh.attempt", call.attempt);
      }
    }
    if (record_.batch.valid()) {
      span.Link(record_.batch);
    }
  }

  void AddCall(const RequestRecord& request, const CallRecord& call, TraceSpans* spans) const {
    {
      SpanGroup* const group = GroupOf(router_, spans);
      SpanWriter span(Head(kCompute, SpanKind::kClient, In(request, call.span), request.dispatch,
                           call.sent, call.done),
                      &group->bytes);
      ++group->count;
      span.Text("rpc.system.name", "grpc").Text("rpc.method", kCompute);
      span.Text("rpc.status_code", CodeName(call.code));
      span.Text("server.address", call.node->host).Number("server.port", call.node->port);
      span.Text("expertmesh.node", call.node->node_id);
      span.Text("expertmesh.batch.id", batch_id_);
      span.Number("expertmesh.rows", call.rows).Number("expertmesh.assignments", call.assignments);
      span.Number("expertmesh.attempt", call.attempt);
      if (call.second_opinion) {
        span.Flag("expertmesh.second_opinion", true);
      }
      span.Flag("expertmesh.contributes", call.contributes);
      if (call.code != absl::StatusCode::kOk) {
        span.Text("error.type", CodeName(call.code)).Error(record_.Text(call.message));
      }
    }
    if (call.code == absl::StatusCode::kOk) {
      AddNode(request, call, GroupOf(call.node->resource, spans));
    }
  }

  // What the node did, by its own durations; where between the ends of the call, is not known: the
  // way there is taken to be as long as the way back.
  void AddNode(const RequestRecord& request, const CallRecord& call, SpanGroup* group) const {
    const mesh::NodeReport& report = call.report;
    const absl::Duration all = call.done - call.sent;
    const absl::Duration receive = std::min(all, absl::Microseconds(report.receive_us));
    const absl::Duration queue = std::min(all - receive, absl::Microseconds(report.queue_us));
    const absl::Duration compute =
        std::min(all - receive - queue, absl::Microseconds(report.compute_us));
    const absl::Time start = call.sent + (all - receive - queue - compute) / 2;
    const absl::Time complete = start + receive;
    const absl::Time started = complete + queue;
    const TraceContext context = In(request, call.node_span);
    SpanHead head = Head(kCompute, SpanKind::kServer, context, call.span, start, started + compute);
    head.remote_parent = true;
    {
      SpanWriter span(head, &group->bytes);
      span.Text("rpc.system.name", "grpc").Text("rpc.method", kCompute);
      span.Text("expertmesh.node", call.node->node_id);
      span.Text("expertmesh.batch.id", batch_id_);
      span.Number("expertmesh.layer", record_.layer).Number("expertmesh.rows", call.rows);
      span.Text("expertmesh.times", "estimated_between_router_times");
    }
    {
      const SpanWriter span(Head("expertmesh.node.queue", SpanKind::kInternal,
                                 In(request, call.queue_span), context.span_id, complete, started),
                            &group->bytes);
    }
    {
      SpanWriter span(
          Head("expertmesh.node.compute", SpanKind::kInternal, In(request, call.compute_span),
               context.span_id, started, started + compute),
          &group->bytes);
      if (report.merge_id != 0) {
        // Calls with the same id, of this router or others, were computed together.
        span.Text("expertmesh.node.merge_id",
                  absl::StrCat(call.node->instance_id, "-", report.merge_id));
        span.Number("expertmesh.node.merged_batches", report.merged_batches);
      }
    }
    group->count += kNodeSpans;
  }

  TraceSpans Batch() const {
    TraceSpans spans;
    spans.id = record_.batch.trace_id;
    const RequestRecord& first = record_.requests.front();
    SpanGroup* const group = GroupOf(router_, &spans);
    SpanWriter span(
        Head(kBatch, SpanKind::kInternal, record_.batch, 0, record_.closed, record_.answered),
        &group->bytes);
    ++group->count;
    AddBatchFacts(&span);
    AddKeep(first.keep, &span);
    // The calls are in its trace.
    span.Text("expertmesh.batch.calls_trace_id", ToHex(first.span.trace_id));
    const size_t links = std::min(record_.requests.size(), kMostLinks);
    for (size_t i = 0; i < links; ++i) {
      const RequestRecord& request = record_.requests[i];
      span.Link(In(request, request.dispatch)).Number("expertmesh.tokens", Signed(request.tokens));
    }
    if (links < record_.requests.size()) {
      span.DroppedLinks(static_cast<uint32_t>(record_.requests.size() - links));
    }
    return spans;
  }

  const TraceRecord& record_;
  const trace::ResourcePtr& router_;
  const std::string batch_id_;
};

}  // namespace

bool IsServersFault(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

std::vector<TraceSpans> SpansOfBatch(const TraceRecord& record, const trace::ResourcePtr& router) {
  return SpanMaker(record, router).Make();
}

std::vector<TraceLine> LinesOf(const TraceRecord& record) {
  std::vector<TraceLine> lines;
  for (const RequestRecord& request : record.requests) {
    TraceLine& line = lines.emplace_back();
    line.id = request.span.trace_id;
    line.name = request.streamed ? kStream : kUnary;
    line.start = request.arrival + record.to_calendar;
    line.duration = request.answered - request.arrival;
    line.layer = record.layer;
    line.tokens = request.tokens;
    line.code = request.code;
    line.keep = request.keep;
    line.spans = SpansOfRequest(record);
  }
  lines.front().spans += SpansOfCalls(record);
  if (record.batch.valid()) {
    TraceLine line = lines.front();
    line.id = record.batch.trace_id;
    line.name = kBatch;
    line.start = record.closed + record.to_calendar;
    line.duration = record.answered - record.closed;
    line.tokens = record.batch_tokens;
    line.spans = 1;
    lines.push_back(line);
  }
  return lines;
}

uint64_t SpansIn(const TraceRecord& record) {
  return record.requests.size() * SpansOfRequest(record) + SpansOfCalls(record) +
         (record.batch.valid() ? 1 : 0);
}

}  // namespace expertmesh::tracing
