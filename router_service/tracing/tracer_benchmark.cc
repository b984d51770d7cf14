// What a traced request costs: its own threads (Note), and the thread that keeps notes and makes
// spans of them (Keep, Make). Each
// with two calls of nodes, which is 10 spans; figures are for each span.
#include <benchmark/benchmark.h>

#include "common/trace/sampling.h"
#include "router_service/tracing/spans_of_batch.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::tracing {
namespace {

constexpr int kCalls = 2;
constexpr int kSpans = 2 + 4 * kCalls;

const std::shared_ptr<const mesh::NodeIdentity>& Node() {
  static const auto* const node = [] {
    v1::NodeDescription description;
    description.set_node_id("node0");
    description.set_instance_id("0123456789abcdef");
    return new auto(std::make_shared<const mesh::NodeIdentity>("10.0.0.7:50061", description));
  }();
  return *node;
}

// As batch/trace_stage.cc does it.
void Fill(const RequestTrace& trace, absl::Time now, TraceRecord* record) {
  record->batch_requests = 1;
  record->dispatched = true;
  record->closed = now;
  record->planned = now + absl::Microseconds(20);
  record->received = now + absl::Microseconds(200);
  record->answered = now + absl::Microseconds(220);
  RequestRecord& request = record->requests.emplace_back();
  request.parent = trace.parent;
  request.span = trace.span;
  request.dispatch = trace::NewSpanId();
  request.tracestate = record->AddText(trace.tracestate);
  request.peer = record->AddText("ipv4:10.0.0.7:41234");
  request.keep = Keep::kSampled;
  request.tokens = 1;
  request.arrival = now;
  request.answered = record->answered;
  for (int i = 0; i < kCalls; ++i) {
    CallRecord& call = record->calls.emplace_back();
    call.span = trace::NewSpanId();
    const auto traceparent =
        trace::FormatTraceparent({trace.span.trace_id, call.span, trace.span.flags});
    benchmark::DoNotOptimize(traceparent);
    call.node = Node();
    call.sent = record->planned;
    call.done = record->received;
    call.rows = 1;
    call.assignments = 4;
    call.contributes = true;
    call.report = {1, 10, 60, 1234, 1};
  }
}

constexpr char kParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

void SetPerSpan(benchmark::State& state) {
  state.counters["per_span"] = benchmark::Counter(
      kSpans, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void BM_Note(benchmark::State& state) {
  TracerOptions options;
  options.max_waiting = 1;  // The rest is dropped: what is measured is up to there.
  Tracer tracer(options, nullptr, Clock::Real());
  for (auto _ : state) {
    const RequestTrace trace = tracer.Begin(kParent, "vendor=1");
    std::shared_ptr<TraceRecord> record = tracer.TakeRecord();
    Fill(trace, Clock::Real()->Now(), record.get());
    tracer.Add(std::move(record));
  }
  SetPerSpan(state);
}
BENCHMARK(BM_Note);

// A request that is not kept: its context alone.
void BM_Begin(benchmark::State& state) {
  const Tracer tracer({}, nullptr, Clock::Real());
  for (auto _ : state) {
    benchmark::DoNotOptimize(tracer.Begin("", ""));
  }
}
BENCHMARK(BM_Begin);

TraceRecord FilledRecord() {
  const Tracer tracer({}, nullptr, Clock::Real());
  TraceRecord record;
  Fill(tracer.Begin(kParent, ""), Clock::Real()->Now(), &record);
  return record;
}

// For GetTrace.
void BM_Keep(benchmark::State& state) {
  TraceRecord record = FilledRecord();
  TraceStore store(32 << 20, nullptr);
  for (auto _ : state) {
    ++record.requests.front().span.trace_id.low;
    store.Add(record);
  }
  SetPerSpan(state);
}
BENCHMARK(BM_Keep);

// For an exporter.
void BM_Make(benchmark::State& state) {
  const TraceRecord record = FilledRecord();
  const auto resource = std::make_shared<const trace::Resource>(trace::TextAttributes());
  for (auto _ : state) {
    benchmark::DoNotOptimize(SpansOfBatch(record, resource));
  }
  SetPerSpan(state);
}
BENCHMARK(BM_Make);

}  // namespace
}  // namespace expertmesh::tracing
