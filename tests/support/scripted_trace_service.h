// A collector without a network, and an exporter on a fake clock that sends to it.
#ifndef EXPERTMESH_TESTS_SUPPORT_SCRIPTED_TRACE_SERVICE_H_
#define EXPERTMESH_TESTS_SUPPORT_SCRIPTED_TRACE_SERVICE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/otlp/otlp_counts.h"
#include "common/otlp/otlp_exporter.h"
#include "common/otlp/otlp_options.h"
#include "common/otlp/trace_service.h"
#include "common/trace/otlp.pb.h"
#include "common/trace/span_sink.h"
#include "common/trace/span_writer.h"
#include "common/trace/trace_context.h"
#include "tests/support/too_long.h"

namespace expertmesh::otlp {

// What the collector does. Thread-safe; outlives the service, as the answers to calls may.
class CollectorScript {
 public:
  using Answer = absl::StatusOr<Frame>;
  struct Call {
    std::string request;
    absl::Duration timeout;
    TraceService::Done done;
  };

  // Answers of the next calls, in order; nothing: none until Finish(). All others are taken.
  void Then(std::optional<Answer> answer) {
    absl::MutexLock lock(&mutex_);
    answers_.push_back(std::move(answer));
  }
  void ThenHang() { Then(std::nullopt); }
  // For all calls that `answers` say nothing of.
  void Always(std::optional<Answer> answer) {
    absl::MutexLock lock(&mutex_);
    always_ = std::move(answer);
  }

  // Answers the call, by number from 0, again if it was answered before.
  void Finish(size_t call, const Answer& answer) const { calls()[call].done(answer); }

  std::vector<Call> calls() const {
    absl::MutexLock lock(&mutex_);
    return calls_;
  }
  size_t call_count() const { return calls().size(); }
  int cancelled() const {
    absl::MutexLock lock(&mutex_);
    return cancelled_;
  }
  bool AwaitCalls(size_t count) const {
    return Await([this, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return calls_.size() >= count; });
  }
  bool AwaitCancelled(int count) const {
    return Await([this, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return cancelled_ >= count; });
  }

  internal::otlp::TracesData Request(size_t call) const {
    internal::otlp::TracesData data;
    EXPECT_TRUE(data.ParseFromString(calls()[call].request));
    return data;
  }
  int SpansOf(size_t call) const {
    const internal::otlp::TracesData request = Request(call);
    int spans = 0;
    for (const auto& of_resource : request.resource_spans()) {
      for (const auto& of_scope : of_resource.scope_spans()) {
        spans += of_scope.spans_size();
      }
    }
    return spans;
  }

  // For the service: notes the call; what to answer at once.
  std::optional<Answer> Begin(Call call) {
    absl::MutexLock lock(&mutex_);
    calls_.push_back(std::move(call));
    if (answers_.empty()) {
      return always_;
    }
    std::optional<Answer> answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }
  void Cancelled() {
    absl::MutexLock lock(&mutex_);
    ++cancelled_;
  }

 private:
  bool Await(const std::function<bool()>& reached) const {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), kTooLong);
  }

  mutable absl::Mutex mutex_;
  std::deque<std::optional<Answer>> answers_ ABSL_GUARDED_BY(mutex_);
  std::optional<Answer> always_ ABSL_GUARDED_BY(mutex_) = Frame();
  std::vector<Call> calls_ ABSL_GUARDED_BY(mutex_);
  int cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
};

class ScriptedTraceService final : public TraceService {
 public:
  explicit ScriptedTraceService(std::shared_ptr<CollectorScript> script)
      : script_(std::move(script)) {}

  std::shared_ptr<net::ClientCall> Export(const Frame& request, absl::Duration timeout,
                                          Done done) override {
    if (auto answer = script_->Begin({request.Flatten(), timeout, done})) {
      done(*std::move(answer));
    }
    return std::make_shared<ScriptedCall>(script_);
  }

 private:
  class ScriptedCall final : public net::ClientCall {
   public:
    explicit ScriptedCall(std::shared_ptr<CollectorScript> script) : script_(std::move(script)) {}
    void Cancel() override { script_->Cancelled(); }

   private:
    const std::shared_ptr<CollectorScript> script_;
  };

  const std::shared_ptr<CollectorScript> script_;
};

// Spans that are alike, as SpanWriter writes them; each has about `name_bytes`.
inline trace::SpanGroup SpansLike(const trace::ResourcePtr& resource, uint32_t count,
                                  size_t name_bytes = 4) {
  trace::SpanGroup group{resource, "", count};
  const std::string name(name_bytes, 's');
  for (uint32_t i = 0; i < count; ++i) {
    trace::SpanHead head;
    head.name = name;
    head.context = {{1, 2}, i + 1, trace::kSampledFlag};
    head.start = head.end = absl::UnixEpoch();
    const trace::SpanWriter writer(head, &group.bytes);
  }
  return group;
}

class ExporterTest : public testing::Test {
 protected:
  ExporterTest() {
    options_.target = "collector:4317";
    options_.max_queue_spans = 100;
    options_.max_batch_spans = 10;
  }

  // Begins with options_ as they are then.
  OtlpExporter& exporter() {
    if (exporter_ == nullptr) {
      exporter_ = std::make_unique<OtlpExporter>(
          options_, std::make_unique<ScriptedTraceService>(script_), &clock_);
    }
    return *exporter_;
  }
  const OtlpCounts& counts() { return exporter().counts(); }
  void Add(uint32_t spans) {
    const trace::SpanGroup group = SpansLike(resource_, spans);
    exporter().Add({&group, 1});
  }
  // Returns once the exporter's thread waits for time or spans.
  void Settle() { clock_.AwaitWaiters(1); }
  void AwaitCalls(size_t count) { ASSERT_TRUE(script_->AwaitCalls(count)); }
  // No more calls than those are made before time moves on. A thread that makes one all the same
  // gets the time to do so.
  void ExpectCallsStay(size_t count) {
    Settle();
    absl::SleepFor(absl::Milliseconds(10));
    EXPECT_EQ(script_->call_count(), count);
  }
  // Once the call of that number, from 1, is made: lets the pause after it pass.
  void PassPauseAfter(size_t call, absl::Duration most) {
    AwaitCalls(call);
    Settle();
    clock_.Advance(most);
  }
  // Waits until it is known what became of all that was added.
  void AwaitOutcome(uint64_t spans) {
    const absl::Time give_up = absl::Now() + kTooLong;
    while (counts().exported + counts().AllDropped() < spans && absl::Now() < give_up) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_EQ(counts().exported + counts().AllDropped(), spans);
  }

  FakeClock clock_;
  OtlpOptions options_;
  const std::shared_ptr<CollectorScript> script_ = std::make_shared<CollectorScript>();
  const trace::ResourcePtr resource_ =
      std::make_shared<trace::Resource>(trace::TextAttributes{{"service.name", "router"}});
  std::unique_ptr<OtlpExporter> exporter_;
};

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_TESTS_SUPPORT_SCRIPTED_TRACE_SERVICE_H_
