// One connection over loopback to a node that echoes, both in this process.
//
// Stream: `in flight` frames of one size all the time; bytes are counted once per direction.
// AfterSilence: one frame after 1.05 s of quiet, where gRPC's callback API would stall for up to
// 100 ms; fails above 50 ms.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/base/process.h"
#include "common/net/grpc_transport.h"
#include "common/tensor/aligned_buffer.h"
#include "expert_service/node_server.h"
#include "tests/support/echo_node.h"

namespace expertmesh::net {
namespace {

// Counts what arrives.
class CountingObserver final : public NodeObserver {
 public:
  void OnStatus(const internal::v1::WatchStatusResponse&) override {
    absl::MutexLock lock(&mutex_);
    up_ = true;
  }
  void OnFrame(Frame) override {
    absl::MutexLock lock(&mutex_);
    ++frames_;
  }
  void OnDisconnected(const absl::Status&) override {}

  void AwaitUp() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&up_));
  }
  void AwaitFrames(uint64_t count) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return frames_ >= count; };
    mutex_.Await(absl::Condition(&reached));
  }

 private:
  absl::Mutex mutex_;
  bool up_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t frames_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Served until the process ends.
struct Rig {
  Rig() {
    node::NodeServerOptions options;
    options.address = "127.0.0.1:0";
    server = *node::NodeServer::Start(&node, options);
    connection = transport.Connect("127.0.0.1:" + std::to_string(server->port()), &observer);
    observer.AwaitUp();
  }
  ~Rig() {
    connection.reset();
    server.reset();
  }

  EchoNode node;
  std::unique_ptr<node::NodeServer> server;
  GrpcRuntime runtime;
  GrpcTransport transport{&runtime, Clock::Real(), {}};
  CountingObserver observer;
  std::unique_ptr<NodeConnection> connection;
  uint64_t sent = 0;
};

void Stream(benchmark::State& state) {
  Rig rig;
  const Frame frame(std::string(static_cast<size_t>(state.range(0)), 'x'));
  const uint64_t in_flight = static_cast<uint64_t>(state.range(1));
  for (auto _ : state) {
    if (!rig.connection->Send(frame).ok()) {
      state.SkipWithError("Send failed");
      break;
    }
    ++rig.sent;
    rig.observer.AwaitFrames(rig.sent < in_flight ? 0 : rig.sent - in_flight + 1);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(Stream)
    ->ArgNames({"bytes", "in_flight"})
    ->ArgsProduct({{64, 4 << 10, 64 << 10, 256 << 10, 1 << 20}, {1, 4}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// Frames of 1 MiB: every other row of a matrix (as runs of one row, the worst there is), copied
// together first or sent from where they lie.
void Rows(benchmark::State& state) {
  Rig rig;
  const auto row_bytes = static_cast<size_t>(state.range(0));
  const bool gather = state.range(1) == 1;
  const size_t rows = (size_t{1} << 20) / row_bytes;
  const auto matrix = std::make_shared<AlignedBuffer>(2 * rows * row_bytes);
  std::memset(matrix->data(), 'x', matrix->size());
  for (auto _ : state) {
    Frame frame("head");
    if (gather) {
      const auto gathered = std::make_shared<AlignedBuffer>(rows * row_bytes);
      for (size_t row = 0; row < rows; ++row) {
        std::memcpy(gathered->data() + row * row_bytes, matrix->data() + 2 * row * row_bytes,
                    row_bytes);
      }
      frame.Append(Slice(gathered->data(), gathered->size(), gathered));
    } else {
      for (size_t row = 0; row < rows; ++row) {
        frame.Append(Slice(matrix->data() + 2 * row * row_bytes, row_bytes, matrix));
      }
    }
    if (!rig.connection->Send(std::move(frame)).ok()) {
      state.SkipWithError("Send failed");
      break;
    }
    ++rig.sent;
    rig.observer.AwaitFrames(rig.sent < 4 ? 0 : rig.sent - 3);
  }
  state.SetBytesProcessed(state.iterations() << 20);
}
BENCHMARK(Rows)
    ->ArgNames({"row_bytes", "gather"})
    ->ArgsProduct({{1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10}, {0, 1}})
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMicrosecond);

void AfterSilence(benchmark::State& state) {
  Rig rig;
  const Frame frame(std::string(4096, 'x'));
  for (auto _ : state) {
    absl::Notification silence;
    silence.WaitForNotificationWithTimeout(absl::Milliseconds(state.range(0)));
    const absl::Time begin = Clock::Real()->Now();
    if (!rig.connection->Send(frame).ok()) {
      state.SkipWithError("Send failed");
      break;
    }
    rig.observer.AwaitFrames(++rig.sent);
    const absl::Duration took = Clock::Real()->Now() - begin;
    if (took > absl::Milliseconds(50)) {
      state.SkipWithError("stalled");
      break;
    }
    state.SetIterationTime(absl::ToDoubleSeconds(took));
  }
}
BENCHMARK(AfterSilence)
    ->ArgName("silence_ms")
    ->Arg(1005)
    ->Arg(1050)
    ->Arg(1090)
    ->UseManualTime()
    ->Iterations(3)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace expertmesh::net

int main(int argc, char** argv) {
  expertmesh::TuneProcess();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
