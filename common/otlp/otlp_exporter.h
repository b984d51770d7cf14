// Sends spans to an OpenTelemetry collector, and never lets a request feel what becomes of them: a
// collector that is slow, refuses or is gone costs spans, which are counted, and nothing else.
//
// Spans are bytes from where they are made (common/trace/span_writer.h) to the socket; the call is
// made by the gRPC client that the mesh has anyway. README.md in common says why not by
// opentelemetry-cpp.
#ifndef EXPERTMESH_COMMON_OTLP_OTLP_EXPORTER_H_
#define EXPERTMESH_COMMON_OTLP_OTLP_EXPORTER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/base/log_limit.h"
#include "common/otlp/otlp_counts.h"
#include "common/otlp/otlp_options.h"
#include "common/otlp/retry.h"
#include "common/otlp/span_queue.h"
#include "common/otlp/trace_service.h"
#include "common/trace/span_sink.h"
#include "common/wire/frame.h"

namespace expertmesh::otlp {

// Thread-safe. Has one thread, which sends one request at a time; what waits meanwhile is bounded,
// and the newest spans are dropped when there is no room.
class OtlpExporter final : public trace::SpanSink {
 public:
  // A batch is sent so often at the most, within OtlpOptions::export_timeout.
  static constexpr int kMostAttempts = 10;

  // `clock` must outlive it.
  OtlpExporter(const OtlpOptions& options, std::unique_ptr<TraceService> service, Clock* clock);
  // Shutdown() with no time left.
  ~OtlpExporter() override;
  OtlpExporter(const OtlpExporter&) = delete;
  OtlpExporter& operator=(const OtlpExporter&) = delete;

  // Copies the spans and takes a lock for as long as it takes to queue them.
  void Add(absl::Span<const trace::SpanGroup> groups) override;

  // Sends what waits, and returns when that is done, at `deadline` (on the clock) at the latest,
  // whatever the collector does. How many of the spans that waited or were under way did not arrive
  // for all this process knows; 0 when it was called before. What is added afterwards is dropped.
  uint64_t Shutdown(absl::Time deadline);

  const OtlpCounts& counts() const { return counts_; }

 private:
  // Shared with the answers to calls, which may come when the exporter is gone.
  struct Shared {
    Shared(const OtlpOptions& options, OtlpCounts* counts) : queue(options, counts) {}

    absl::Mutex mutex;
    absl::CondVar changed;
    SpanQueue queue ABSL_GUARDED_BY(mutex);
    // The thread waits for spans.
    bool waiting ABSL_GUARDED_BY(mutex) = false;
    std::optional<absl::Time> stop_at ABSL_GUARDED_BY(mutex);
    // The number of the call under way, or of none, and its answer.
    uint64_t call ABSL_GUARDED_BY(mutex) = 0;
    std::optional<absl::StatusOr<Frame>> answer ABSL_GUARDED_BY(mutex);
  };

  // All of these are for the thread.
  void Run();
  // Empty when the thread is to end.
  std::vector<SpanPiece> AwaitBatch();
  void Export(const std::vector<SpanPiece>& pieces);
  // False when the process ends before the next request may be sent.
  bool AwaitTurn();
  // Nothing when the process ends before there is an answer.
  std::optional<absl::StatusOr<Frame>> Call(const Frame& request);
  std::optional<absl::StatusOr<Frame>> AwaitAnswer(absl::Time call_end);
  // What becomes of `spans` of a request that ended so. False when it is to be sent again.
  bool Settle(const absl::StatusOr<Frame>& answer, uint64_t spans, bool last_attempt,
              absl::Time give_up);
  void OnAnswer(const Frame& answer, uint64_t spans);
  void Drop(DropReason reason, uint64_t spans);
  void LogFailure(const absl::Status& status, uint64_t spans, bool again);
  void LogDrops();

  const OtlpOptions options_;
  const std::unique_ptr<TraceService> service_;
  Clock* const clock_;
  OtlpCounts counts_;
  const std::shared_ptr<Shared> shared_;
  LogLimit failure_lines_;
  LogLimit partial_lines_;
  LogLimit drop_lines_;

  // The thread's own.
  Backoff backoff_;
  absl::Time hold_until_ = absl::InfinitePast();  // No request before that.
  bool failure_told_ = false;                     // In the log, and no success since.
  std::array<uint64_t, kDropReasons.size()> drops_told_{};
  // While it ends. Read when it has ended.
  uint64_t lost_ = 0;

  absl::Mutex join_mutex_;
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);  // Last: starts when everything else is there.
};

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_COMMON_OTLP_OTLP_EXPORTER_H_
