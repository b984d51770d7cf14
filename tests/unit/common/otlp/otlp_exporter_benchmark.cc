// CPU time of a span with 8 attributes, from its clock readings to the collector: written, queued,
// sent over loopback to a server in this process that only receives. That of opentelemetry-cpp is
// in common/README.md.
//
// Written: what the thread that makes spans pays. Exported: all threads, the server's too.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "common/base/process.h"
#include "common/net/grpc_runtime.h"
#include "common/net/grpc_server.h"
#include "common/otlp/otlp_exporter.h"
#include "common/trace/sampling.h"
#include "common/trace/span_writer.h"

namespace expertmesh::otlp {
namespace {

// Those of one request go together.
constexpr int kSpansOfGroup = 20;

void WriteSpan(int64_t number, std::string* bytes) {
  trace::SpanHead head;
  head.name = "expertmesh.v1.Router/Forward";
  head.kind = trace::SpanKind::kClient;
  head.context = {trace::NewTraceId(), trace::NewSpanId(), trace::kSampledFlag};
  head.start = absl::Now();
  head.end = absl::Now();
  trace::SpanWriter writer(head, bytes);
  writer.Text("rpc.system.name", "grpc")
      .Text("rpc.method", "expertmesh.internal.v1.Node/Compute")
      .Text("server.address", "10.1.2.3")
      .Number("server.port", 50061)
      .Number("expertmesh.layer", 17)
      .Number("expertmesh.rows", 64 + number % 7)
      .Number("expertmesh.bytes", 1 << 20)
      .Flag("expertmesh.hedged", false);
}

struct Rig {
  explicit Rig(bool gzip) {
    net::GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.unary = {{"/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                   [](Frame, const CallContextPtr&, const net::UnaryResponder& respond) {
                     respond(Frame());
                   }}};
    server = *net::GrpcServer::Start(std::move(spec));
    OtlpOptions options;
    options.target = "127.0.0.1:" + std::to_string(server->port());
    options.gzip = gzip;
    exporter =
        std::make_unique<OtlpExporter>(options, MakeTraceService(&runtime, options), Clock::Real());
  }

  // One group; waits while the queue is half full, so that none is dropped.
  void AddGroup() {
    group.bytes.clear();
    for (int i = 0; i < kSpansOfGroup; ++i) {
      WriteSpan(i, &group.bytes);
    }
    exporter->Add({&group, 1});
    while (exporter->counts().queue_spans.load() > 32'000) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  std::unique_ptr<net::GrpcServer> server;
  net::GrpcRuntime runtime;
  std::unique_ptr<OtlpExporter> exporter;
  trace::SpanGroup group{
      std::make_shared<trace::Resource>(trace::TextAttributes{{"service.name", "router"}}), "",
      kSpansOfGroup};
};

void Written(benchmark::State& state) {
  std::string bytes;
  for (auto _ : state) {
    bytes.clear();
    for (int i = 0; i < kSpansOfGroup; ++i) {
      WriteSpan(i, &bytes);
    }
    benchmark::DoNotOptimize(bytes.data());
  }
  state.SetItemsProcessed(state.iterations() * kSpansOfGroup);
  state.counters["bytes_per_span"] = static_cast<double>(bytes.size()) / kSpansOfGroup;
  state.counters["cpu_per_span"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kSpansOfGroup,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(Written);

// `all_threads`: the CPU time of the process, else of the thread that makes the spans.
void Exported(benchmark::State& state, bool gzip) {
  Rig rig(gzip);
  for (auto _ : state) {
    rig.AddGroup();
  }
  const uint64_t lost = rig.exporter->Shutdown(Clock::Real()->Now() + absl::Minutes(1));
  const OtlpCounts& counts = rig.exporter->counts();
  if (lost > 0 || counts.AllDropped() > 0) {
    state.SkipWithError("spans were dropped");
  }
  state.SetItemsProcessed(state.iterations() * kSpansOfGroup);
  state.counters["cpu_per_span"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kSpansOfGroup,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK_CAPTURE(Exported, one_thread, false);
BENCHMARK_CAPTURE(Exported, all_threads, false)->MeasureProcessCPUTime();
BENCHMARK_CAPTURE(Exported, all_threads_gzip, true)->MeasureProcessCPUTime();

}  // namespace
}  // namespace expertmesh::otlp

int main(int argc, char** argv) {
  expertmesh::TuneProcess();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
