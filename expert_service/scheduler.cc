#include "expert_service/scheduler.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/wire/tensor_encode.h"
#include "expert_service/compute_response.h"

namespace expertmesh::node {
namespace {

uint64_t RowsOf(const Batch& batch) { return batch.total_rows; }

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, experts::Backend* backend, Clock* clock,
                     NodeMetrics* metrics)
    : options_(options), clock_(clock), metrics_(metrics), computer_(backend), thread_([this] {
        Run();
      }) {}

Scheduler::~Scheduler() { Stop(); }

Scheduler::StreamId Scheduler::OpenStream(std::shared_ptr<FrameSink> replies) {
  const absl::MutexLock lock(&mutex_);
  const StreamId id = next_stream_++;
  streams_[id].replies = std::move(replies);
  return id;
}

void Scheduler::CloseStream(StreamId stream) {
  std::shared_ptr<FrameSink> replies;
  {
    const absl::MutexLock lock(&mutex_);
    const auto found = streams_.find(stream);
    if (found == streams_.end()) {
      return;
    }
    replies = std::move(found->second.replies);
    streams_.erase(found);
  }
  if (replies->IsGone()) {
    DropStream(stream);
  }
}

void Scheduler::DropStream(StreamId stream) {
  std::vector<Entry> dropped;  // Destroyed outside the lock.
  std::shared_ptr<FrameSink> replies;
  {
    const absl::MutexLock lock(&mutex_);
    const auto found = streams_.find(stream);
    if (found != streams_.end()) {
      replies = std::move(found->second.replies);
      streams_.erase(found);
    }
    for (auto layer = waiting_.begin(); layer != waiting_.end();) {
      Queue& queue = layer->second;
      for (auto it = queue.begin(); it != queue.end();) {
        const auto next = std::next(it);
        if (it->second.stream == stream) {
          dropped.push_back(TakeFrom(&queue, it));
        }
        it = next;
      }
      layer = queue.empty() ? waiting_.erase(layer) : std::next(layer);
    }
  }
  CountDropped(dropped);
}

void Scheduler::DropGone(std::vector<Entry>* group) {
  const auto gone = std::stable_partition(
      group->begin(), group->end(), [](const Entry& entry) { return !entry.replies->IsGone(); });
  const std::vector<Entry> dropped(std::make_move_iterator(gone),
                                   std::make_move_iterator(group->end()));
  group->erase(gone, group->end());
  CountDropped(dropped);
}

void Scheduler::CountDropped(const std::vector<Entry>& dropped) {
  uint64_t rows = 0;
  for (const Entry& entry : dropped) {
    rows += RowsOf(*entry.batch);
    metrics_->Dropped();
  }
  CountAnswered(dropped.size(), rows);
}

bool Scheduler::IsSmall(const Batch& batch) const {
  const uint64_t parameters = batch.hosted->description->expert.parameters();
  return batch.expert_ids.size() * parameters <= options_.inline_parameters;
}

absl::Status Scheduler::Enqueue(StreamId stream, std::unique_ptr<Batch> batch) {
  std::vector<Entry> group;
  std::vector<Entry> expired;
  const bool small = IsSmall(*batch);
  const uint64_t rows = RowsOf(*batch);
  {
    const absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(Accept(stream, std::move(batch)));
    if (!small || computing_ || waiting_rows_ > rows) {
      work_.Signal();
      return absl::OkStatus();
    }
    computing_ = true;
    TakeGroup(&group, &expired);
  }
  Serve(std::move(group), std::move(expired));
  ComputingDone();
  return absl::OkStatus();
}

absl::Status Scheduler::Accept(StreamId stream, std::unique_ptr<Batch> batch) {
  if (stopping_) {
    return absl::UnavailableError("this node is stopping; send the batch elsewhere");
  }
  const auto found = streams_.find(stream);
  if (found == streams_.end()) {
    return absl::UnavailableError("the stream is closed");
  }
  const uint64_t rows = RowsOf(*batch);
  if (waiting_rows_ + rows > options_.max_queue_rows) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "queue full: ", waiting_rows_, " rows wait, ", rows, " more pass max_queue_rows ",
        options_.max_queue_rows, "; send less, or elsewhere"));
  }
  if (waiting_bytes_ + batch->bytes > options_.max_queue_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "queue full: ", waiting_bytes_, " bytes wait, ", batch->bytes,
        " more pass max_queue_bytes ", options_.max_queue_bytes, "; send less, or elsewhere"));
  }
  if (!found->second.in_flight.insert(batch->batch_id).second) {
    return absl::InvalidArgumentError(absl::StrCat(
        "batch_id ", batch->batch_id, " is in flight on this stream already; use a new one"));
  }
  waiting_rows_ += rows;
  waiting_bytes_ += batch->bytes;
  ++batches_in_flight_;
  rows_in_flight_ += rows;
  metrics_->SetQueueRows(waiting_rows_);
  const Key key(std::min(batch->deadline, batch->completed + options_.deadline_window),
                next_arrival_++);
  Queue& queue = waiting_[batch->layer];
  queue.emplace(key, Entry{stream, found->second.replies, std::move(batch)});
  return absl::OkStatus();
}

Scheduler::Load Scheduler::load() const {
  const absl::MutexLock lock(&mutex_);
  return {batches_in_flight_, rows_in_flight_, waiting_rows_};
}

bool Scheduler::AwaitIdle(absl::Time deadline) const {
  const absl::MutexLock lock(&mutex_);
  while (batches_in_flight_ > 0) {
    if (clock_->WaitUntil(&mutex_, &idle_, deadline)) {
      return batches_in_flight_ == 0;
    }
  }
  return true;
}

void Scheduler::Stop() {
  std::vector<Entry> left;
  {
    const absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [layer, queue] : waiting_) {
      while (!queue.empty()) {
        left.push_back(TakeFrom(&queue, queue.begin()));
      }
    }
    waiting_.clear();
    work_.SignalAll();
  }
  Refuse(std::move(left),
         absl::UnavailableError("this node is stopping; send the batch elsewhere"));
  {
    const absl::MutexLock lock(&join_mutex_);
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  // A network thread may be computing, too.
  const absl::MutexLock lock(&mutex_);
  while (computing_) {
    work_.Wait(&mutex_);
  }
}

Scheduler::Entry Scheduler::TakeFrom(Queue* queue, Queue::iterator position) {
  Entry entry = std::move(position->second);
  queue->erase(position);
  waiting_rows_ -= RowsOf(*entry.batch);
  waiting_bytes_ -= entry.batch->bytes;
  metrics_->SetQueueRows(waiting_rows_);
  return entry;
}

void Scheduler::TakeGroup(std::vector<Entry>* group, std::vector<Entry>* expired) {
  const auto layer =
      std::min_element(waiting_.begin(), waiting_.end(), [](const auto& a, const auto& b) {
        return a.second.begin()->first < b.second.begin()->first;
      });
  EXPERTMESH_CHECK(layer != waiting_.end());
  Queue& queue = layer->second;
  const absl::Time now = clock_->Now();
  uint64_t rows = 0;
  while (!queue.empty()) {
    const Batch& head = *queue.begin()->second.batch;
    if (head.deadline <= now) {
      expired->push_back(TakeFrom(&queue, queue.begin()));
      continue;
    }
    if (!group->empty() && rows + head.answer_rows() > options_.max_batch_rows) {
      break;
    }
    rows += head.answer_rows();
    group->push_back(TakeFrom(&queue, queue.begin()));
  }
  if (queue.empty()) {
    waiting_.erase(layer);
  }
}

void Scheduler::Run() {
  while (true) {
    std::vector<Entry> group;
    std::vector<Entry> expired;
    {
      const absl::MutexLock lock(&mutex_);
      while (!stopping_ && (waiting_.empty() || computing_)) {
        work_.Wait(&mutex_);
      }
      if (stopping_) {
        return;
      }
      computing_ = true;
      TakeGroup(&group, &expired);
    }
    Serve(std::move(group), std::move(expired));
    ComputingDone();
  }
}

void Scheduler::ComputingDone() {
  const absl::MutexLock lock(&mutex_);
  computing_ = false;
  if (stopping_ || !waiting_.empty()) {
    work_.SignalAll();
  }
}

void Scheduler::Serve(std::vector<Entry> group, std::vector<Entry> expired) {
  if (!expired.empty()) {
    Refuse(std::move(expired),
           absl::DeadlineExceededError("timeout_us: the deadline passed while the batch waited "
                                       "to be computed; allow more time, or send less"));
  }
  DropGone(&group);
  if (!group.empty()) {
    Execute(std::move(group));
  }
}

void Scheduler::Execute(std::vector<Entry> group) {
  const uint32_t layer = group[0].batch->layer;
  const absl::Time started = clock_->Now();
  std::vector<std::unique_ptr<Batch>> batches;
  uint64_t rows = 0;
  for (Entry& entry : group) {
    rows += RowsOf(*entry.batch);
    batches.push_back(std::move(entry.batch));
  }
  const absl::StatusOr<BatchComputer::Result> result = computer_.Compute(batches);
  const absl::Time finished = clock_->Now();
  for (size_t i = 0; i < group.size(); ++i) {
    group[i].batch = std::move(batches[i]);
    // Received bytes and experts are done with; slow readers shall not keep them.
    group[i].batch->parts.clear();
    group[i].batch->hosted.reset();
  }
  if (!result.ok()) {
    Refuse(std::move(group),
           absl::Status(result.status().code(),
                        absl::StrCat("layer ", layer, ": ", result.status().message())));
    return;
  }
  metrics_->Computed(layer, rows, finished - started, result->assignments);
  if (result->nonfinite_rows > 0) {
    metrics_->NonFinite(result->nonfinite_rows);
  }
  ReleaseIds(group);
  size_t first_row = 0;
  for (const Entry& entry : group) {
    SendResult(entry, *result, first_row, started, finished);
    first_row += entry.batch->answer_rows();
  }
  CountAnswered(group.size(), rows);
}

void Scheduler::SendResult(const Entry& entry, const BatchComputer::Result& result,
                           size_t first_row, absl::Time started, absl::Time finished) {
  const Batch& batch = *entry.batch;
  const absl::Duration waited = started - batch.completed;
  metrics_->Queued(waited);
  BatchResult answer;
  answer.batch_id = batch.batch_id;
  answer.rows = batch.answer_rows();
  answer.d_model = result.d_model;
  answer.partials = result.partials->as<float>() + first_row * result.d_model;
  answer.owner = result.partials;
  answer.dtype = batch.partials_dtype;
  answer.checksums = batch.checksums;
  if (IsLossy(DType::kF32, answer.dtype)) {
    // Of one row: cheap, and over many batches each row has its turn.
    const size_t row = batch.batch_id % answer.rows;
    metrics_->PartialsEncoded(batch.layer,
                              EncodingError(DType::kF32, answer.partials + row * answer.d_model,
                                            answer.d_model, answer.dtype));
  }
  answer.queue_us = ToMicros(waited);
  answer.compute_us = ToMicros(finished - started);
  std::vector<size_t> widened;
  std::vector<Frame> frames = EncodeResult(answer, options_.reply_frame_bytes, &widened);
  if (!widened.empty()) {
    const float* const first = answer.partials + widened.front() * answer.d_model;
    metrics_->PartialsWidened(batch.layer, widened.size(),
                              LargestFinite(DType::kF32, first, answer.d_model), answer.dtype);
  }
  for (Frame& frame : frames) {
    if (!entry.replies->Send(std::move(frame)).ok()) {
      // It is gone, or does not read: its other batches are not worth computing either.
      metrics_->Dropped();
      DropStream(entry.stream);
      return;
    }
  }
}

void Scheduler::Refuse(std::vector<Entry> entries, const absl::Status& status) {
  ReleaseIds(entries);
  uint64_t rows = 0;
  for (const Entry& entry : entries) {
    metrics_->Rejected(status.code());
    // A stream that is gone no longer wants its answer.
    (void)entry.replies->Send(EncodeError(entry.batch->batch_id, status));
    rows += RowsOf(*entry.batch);
  }
  const size_t count = entries.size();
  entries.clear();
  CountAnswered(count, rows);
}

void Scheduler::ReleaseIds(const std::vector<Entry>& entries) {
  const absl::MutexLock lock(&mutex_);
  for (const Entry& entry : entries) {
    const auto found = streams_.find(entry.stream);
    if (found != streams_.end()) {
      found->second.in_flight.erase(entry.batch->batch_id);
    }
  }
}

void Scheduler::CountAnswered(size_t batches, uint64_t rows) {
  const absl::MutexLock lock(&mutex_);
  batches_in_flight_ -= static_cast<uint32_t>(batches);
  rows_in_flight_ -= rows;
  if (batches_in_flight_ == 0) {
    idle_.SignalAll();
  }
}

}  // namespace expertmesh::node
