#include "common/otlp/otlp_exporter.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "common/base/peer_text.h"
#include "common/otlp/span_cut.h"
#include "common/trace/otlp.pb.h"

namespace expertmesh::otlp {
namespace {

constexpr absl::Duration kLineInterval = absl::Minutes(1);

std::string TextOf(const absl::Status& status) {
  return absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message());
}

}  // namespace

OtlpExporter::OtlpExporter(const OtlpOptions& options, std::unique_ptr<TraceService> service,
                           Clock* clock)
    : options_(options),
      service_(std::move(service)),
      clock_(clock),
      shared_(std::make_shared<Shared>(options, &counts_)),
      failure_lines_(kLineInterval, clock),
      partial_lines_(kLineInterval, clock),
      drop_lines_(kLineInterval, clock),
      thread_([this] { Run(); }) {}

OtlpExporter::~OtlpExporter() { Shutdown(absl::InfinitePast()); }

void OtlpExporter::Add(absl::Span<const trace::SpanGroup> groups) {
  const absl::Time due = clock_->Now() + options_.schedule_delay;
  absl::InlinedVector<SpanPiece, 4> pieces;
  for (const trace::SpanGroup& group : groups) {
    uint32_t seen = 0;
    const LeftOut left_out =
        CutSpans(group.bytes, options_.max_batch_spans, MostPieceBytes(*group.resource, options_),
                 [&](absl::string_view bytes, uint32_t count) {
                   seen += count;
                   // Without the lock, so that nothing is copied in vain while the queue is full.
                   if (counts_.queue_spans.load(std::memory_order_relaxed) + count >
                           options_.max_queue_spans ||
                       counts_.queue_bytes.load(std::memory_order_relaxed) + bytes.size() >
                           options_.max_queue_bytes) {
                     counts_.Drop(DropReason::kQueueFull, count);
                   } else {
                     pieces.push_back({group.resource, std::string(bytes), count, due});
                   }
                 });
    if (left_out.too_large > 0) {
      seen += left_out.too_large;
      counts_.Drop(DropReason::kTooLarge, left_out.too_large);
    }
    if (left_out.malformed) {
      counts_.Drop(DropReason::kMalformed, group.count > seen ? group.count - seen : 1);
    }
  }
  if (pieces.empty()) {
    return;
  }
  absl::MutexLock lock(&shared_->mutex);
  const bool was_empty = shared_->queue.empty();
  for (SpanPiece& piece : pieces) {
    const uint32_t count = piece.count;
    if (shared_->stop_at.has_value()) {
      counts_.Drop(DropReason::kShutdown, count);
    } else if (!shared_->queue.Push(std::move(piece))) {
      counts_.Drop(DropReason::kQueueFull, count);
    }
  }
  if (shared_->waiting && (was_empty || shared_->queue.HasFullBatch())) {
    shared_->waiting = false;
    shared_->changed.SignalAll();
  }
}

uint64_t OtlpExporter::Shutdown(absl::Time deadline) {
  {
    absl::MutexLock lock(&shared_->mutex);
    shared_->stop_at = std::min(deadline, shared_->stop_at.value_or(absl::InfiniteFuture()));
    shared_->changed.SignalAll();
  }
  absl::MutexLock lock(&join_mutex_);
  if (!thread_.joinable()) {
    return 0;
  }
  thread_.join();
  return lost_;
}

void OtlpExporter::Run() {
  while (true) {
    const std::vector<SpanPiece> batch = AwaitBatch();
    if (batch.empty()) {
      break;
    }
    Export(batch);
    LogDrops();
  }
  uint64_t left = 0;
  {
    absl::MutexLock lock(&shared_->mutex);
    while (!shared_->queue.empty()) {
      for (const SpanPiece& piece : shared_->queue.TakeBatch()) {
        left += piece.count;
      }
    }
  }
  Drop(DropReason::kShutdown, left);
  if (lost_ > 0) {
    spdlog::warn("{} of the last spans were not taken by {} as the process ended", lost_,
                 options_.target);
  }
}

std::vector<SpanPiece> OtlpExporter::AwaitBatch() {
  absl::MutexLock lock(&shared_->mutex);
  while (true) {
    const absl::Time now = clock_->Now();
    if (shared_->stop_at.has_value()) {
      return now < *shared_->stop_at ? shared_->queue.TakeBatch() : std::vector<SpanPiece>();
    }
    const absl::Time due = shared_->queue.due();
    if (due <= now || shared_->queue.HasFullBatch()) {
      return shared_->queue.TakeBatch();
    }
    shared_->waiting = true;
    clock_->WaitUntil(&shared_->mutex, &shared_->changed, due);
    shared_->waiting = false;
  }
}

void OtlpExporter::Export(const std::vector<SpanPiece>& pieces) {
  uint64_t spans = 0;
  for (const SpanPiece& piece : pieces) {
    spans += piece.count;
  }
  const Frame request = RequestOf(pieces);
  const absl::Time give_up = clock_->Now() + options_.export_timeout;
  for (int attempt = 1;; ++attempt) {
    if (!AwaitTurn()) {
      Drop(DropReason::kShutdown, spans);
      return;
    }
    counts_.retries.fetch_add(attempt > 1 ? 1 : 0, std::memory_order_relaxed);
    const std::optional<absl::StatusOr<Frame>> answer = Call(request);
    if (!answer.has_value()) {
      Drop(DropReason::kShutdown, spans);
      return;
    }
    if (Settle(*answer, spans, attempt == kMostAttempts, give_up)) {
      return;
    }
  }
}

bool OtlpExporter::AwaitTurn() {
  absl::MutexLock lock(&shared_->mutex);
  while (true) {
    const absl::Time now = clock_->Now();
    if (shared_->stop_at.has_value() && *shared_->stop_at <= std::max(now, hold_until_)) {
      return false;
    }
    if (now >= hold_until_) {
      return true;
    }
    clock_->WaitUntil(&shared_->mutex, &shared_->changed, hold_until_);
  }
}

std::optional<absl::StatusOr<Frame>> OtlpExporter::Call(const Frame& request) {
  const absl::Time begin = clock_->Now();
  absl::Time end = begin + options_.timeout;
  uint64_t id = 0;
  {
    absl::MutexLock lock(&shared_->mutex);
    end = std::min(end, shared_->stop_at.value_or(absl::InfiniteFuture()));
    id = ++shared_->call;
    shared_->answer.reset();
  }
  counts_.requests.fetch_add(1, std::memory_order_relaxed);
  const std::shared_ptr<net::ClientCall> call =
      service_->Export(request, std::max(end - begin, absl::Milliseconds(1)),
                       [shared = shared_, id](absl::StatusOr<Frame> answer) {
                         absl::MutexLock lock(&shared->mutex);
                         if (shared->call == id) {
                           shared->answer = std::move(answer);
                           shared->changed.SignalAll();
                         }
                       });
  // The deadline is kept here, whatever becomes of the call's own.
  std::optional<absl::StatusOr<Frame>> answer = AwaitAnswer(begin + options_.timeout);
  if (!answer.has_value() || absl::IsDeadlineExceeded(answer->status())) {
    call->Cancel();
  }
  counts_.export_nanos.fetch_add(
      static_cast<uint64_t>(absl::ToInt64Nanoseconds(clock_->Now() - begin)),
      std::memory_order_relaxed);
  return answer;
}

std::optional<absl::StatusOr<Frame>> OtlpExporter::AwaitAnswer(absl::Time call_end) {
  absl::MutexLock lock(&shared_->mutex);
  while (!shared_->answer.has_value()) {
    const absl::Time stop_at = shared_->stop_at.value_or(absl::InfiniteFuture());
    const absl::Time end = std::min(call_end, stop_at);
    if (clock_->Now() >= end) {
      ++shared_->call;  // An answer that comes yet is not heard.
      if (end == stop_at) {
        return std::nullopt;
      }
      return absl::DeadlineExceededError(
          absl::StrCat("no answer in ", absl::FormatDuration(options_.timeout)));
    }
    clock_->WaitUntil(&shared_->mutex, &shared_->changed, end);
  }
  return std::exchange(shared_->answer, std::nullopt);
}

bool OtlpExporter::Settle(const absl::StatusOr<Frame>& answer, uint64_t spans, bool last_attempt,
                          absl::Time give_up) {
  if (answer.ok()) {
    backoff_.Reset();
    OnAnswer(*answer, spans);
    return true;
  }
  const std::optional<absl::Duration> delay = RetryDelayOf(answer.status());
  if (delay.has_value()) {
    // Also for the next batch, if this one is given up.
    hold_until_ = clock_->Now() + std::max(*delay, backoff_.Next());
  }
  const bool again = delay.has_value() && !last_attempt && hold_until_ < give_up;
  LogFailure(answer.status(), spans, again);
  if (!again) {
    Drop(delay.has_value() ? DropReason::kRetriesOver : DropReason::kRefused, spans);
  }
  return !again;
}

void OtlpExporter::OnAnswer(const Frame& answer, uint64_t spans) {
  internal::otlp::ExportTraceServiceResponse response;
  // One that cannot be read rejects nothing.
  const bool readable = response.ParseFromString(answer.Flatten());
  const auto& partial = response.partial_success();
  const int64_t told = readable ? partial.rejected_spans() : 0;
  const uint64_t rejected = told < 0 ? 0 : std::min(static_cast<uint64_t>(told), spans);
  counts_.exported.fetch_add(spans - rejected, std::memory_order_relaxed);
  Drop(DropReason::kPartial, rejected);
  if (readable && (rejected > 0 || !partial.error_message().empty())) {
    if (const std::optional<uint64_t> left_out = partial_lines_.Take()) {
      spdlog::warn("{} took {} of {} spans: {}{}", options_.target, spans - rejected, spans,
                   PeerText(partial.error_message()), LeftOutText(*left_out));
    }
  }
  if (failure_told_) {
    failure_told_ = false;
    spdlog::info("{} takes spans again", options_.target);
  }
}

void OtlpExporter::Drop(DropReason reason, uint64_t spans) {
  if (spans == 0) {
    return;
  }
  counts_.Drop(reason, spans);
  absl::MutexLock lock(&shared_->mutex);
  lost_ += shared_->stop_at.has_value() ? spans : 0;
}

void OtlpExporter::LogFailure(const absl::Status& status, uint64_t spans, bool again) {
  if (const std::optional<uint64_t> left_out = failure_lines_.Take()) {
    spdlog::warn("sending {} spans to {} failed, {}: {}{}", spans, options_.target,
                 again ? "and is tried again" : "and they are dropped", TextOf(status),
                 LeftOutText(*left_out));
    failure_told_ = true;
  }
}

void OtlpExporter::LogDrops() {
  std::string text;
  std::array<uint64_t, kDropReasons.size()> now{};
  for (const DropReason reason : kDropReasons) {
    const auto place = static_cast<size_t>(reason);
    now[place] = counts_.Dropped(reason);
    if (now[place] > drops_told_[place]) {
      absl::StrAppend(&text, text.empty() ? "" : ", ", NameOf(reason), " ",
                      now[place] - drops_told_[place]);
    }
  }
  if (!text.empty() && drop_lines_.Take().has_value()) {
    spdlog::warn("spans dropped since the last such line: {}", text);
    drops_told_ = now;
  }
}

}  // namespace expertmesh::otlp
