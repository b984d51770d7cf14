#include "expert_service/executor.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"

namespace expertmesh::node {
namespace {

uint64_t RowsOf(const std::vector<QueuedBatch>& batches) {
  uint64_t rows = 0;
  for (const QueuedBatch& queued : batches) {
    rows += queued.batch->total_rows;
  }
  return rows;
}

// Ascending.
std::vector<uint32_t> DistinctExperts(const ReceivedBatch& batch) {
  std::vector<uint32_t> experts = batch.expert_ids;
  std::sort(experts.begin(), experts.end());
  experts.erase(std::unique(experts.begin(), experts.end()), experts.end());
  return experts;
}

absl::Status StoppingError() {
  return absl::UnavailableError("this node is stopping; send the batch elsewhere");
}

}  // namespace

Executor::Executor(const ExecutorOptions& options, experts::Backend* backend, Clock* clock,
                   const ReplySender* reply_sender, NodeMetrics* metrics, ResidentExperts* resident)
    : options_(options),
      backend_(backend),
      clock_(clock),
      reply_sender_(reply_sender),
      metrics_(metrics),
      resident_(resident),
      runs_(backend->preferred_in_flight()),
      queue_(options.queue) {
  EXPERTMESH_CHECK(!runs_.empty());
  {
    const absl::MutexLock lock(&mutex_);
    for (Run& run : runs_) {
      free_runs_.push_back(&run);
    }
  }
  const absl::MutexLock lock(&join_mutex_);
  thread_ = std::thread([this] { SubmitGroups(); });
}

Executor::~Executor() { Stop(); }

StreamId Executor::OpenStream(std::shared_ptr<FrameSink> replies) {
  const absl::MutexLock lock(&mutex_);
  return streams_.Open(std::move(replies));
}

void Executor::CloseStream(StreamId stream) {
  std::shared_ptr<FrameSink> replies;
  {
    const absl::MutexLock lock(&mutex_);
    replies = streams_.Close(stream);
  }
  if (replies != nullptr && replies->IsGone()) {
    DropStream(stream);
  }
}

void Executor::DropStream(StreamId stream) {
  std::vector<QueuedBatch> dropped;  // Destroyed outside the lock, as the sink is.
  std::shared_ptr<FrameSink> replies;
  {
    const absl::MutexLock lock(&mutex_);
    replies = streams_.Close(stream);
    dropped = queue_.TakeStream(stream);
    metrics_->SetQueue(queue_.batches(), queue_.rows());
  }
  CountDropped(dropped);
}

void Executor::DropUnwanted(std::vector<QueuedBatch>* batches) {
  const auto gone =
      std::stable_partition(batches->begin(), batches->end(),
                            [](const QueuedBatch& queued) { return !queued.replies->IsGone(); });
  if (gone == batches->end()) {
    return;
  }
  const std::vector<QueuedBatch> dropped(std::make_move_iterator(gone),
                                         std::make_move_iterator(batches->end()));
  batches->erase(gone, batches->end());
  CountDropped(dropped);
}

void Executor::CountDropped(const std::vector<QueuedBatch>& dropped) {
  for (size_t i = 0; i < dropped.size(); ++i) {
    metrics_->CountDropped();
  }
  CountAnswered(dropped.size(), RowsOf(dropped));
}

bool Executor::IsSmall(const ReceivedBatch& batch) const {
  const MoeLayerDescription& layer = *batch.hosted->description;
  const auto shared = static_cast<uint64_t>(
      std::count(batch.expert_ids.begin(), batch.expert_ids.end(), layer.shared_expert_id()));
  const uint64_t parameters = (batch.expert_ids.size() - shared) * layer.expert.parameters() +
                              shared * layer.shared_expert().parameters();
  return parameters <= options_.inline_parameters;
}

absl::Status Executor::Enqueue(StreamId stream, std::unique_ptr<ReceivedBatch> batch) {
  if (resident_ != nullptr) {
    std::vector<uint32_t> experts = DistinctExperts(*batch);
    if (!resident_->TryAcquire(*batch->hosted, experts, &batch->lease)) {
      return EnqueueAbsent(stream, std::move(batch), std::move(experts));
    }
  }
  const bool small = IsSmall(*batch);
  const uint64_t rows = batch->total_rows;
  Run* run = nullptr;
  {
    const absl::MutexLock lock(&mutex_);
    ASSIGN_OR_RETURN(QueuedBatch queued, Accept(stream, std::move(batch)));
    queue_.Add(std::move(queued));
    const bool alone = free_runs_.size() == runs_.size() && queue_.rows_in_line() == rows;
    if (!small || !alone) {
      metrics_->SetQueue(queue_.batches(), queue_.rows());
      work_.Signal();
      return absl::OkStatus();
    }
    run = TakeGroup();
  }
  Submit(run);
  return absl::OkStatus();
}

absl::Status Executor::EnqueueAbsent(StreamId stream, std::unique_ptr<ReceivedBatch> batch,
                                     std::vector<uint32_t> experts) {
  std::shared_ptr<const HostedLayer> hosted = batch->hosted;
  const absl::Time deadline = batch->deadline;
  uint64_t ticket = 0;
  {
    const absl::MutexLock lock(&mutex_);
    ASSIGN_OR_RETURN(QueuedBatch queued, Accept(stream, std::move(batch)));
    ticket = queue_.Park(std::move(queued));
    metrics_->SetQueue(queue_.batches(), queue_.rows());
  }
  resident_->Await(
      std::move(hosted), std::move(experts), deadline,
      [this, ticket](absl::StatusOr<ExpertLease> lease) { OnExperts(ticket, std::move(lease)); });
  return absl::OkStatus();
}

void Executor::OnExperts(uint64_t ticket, absl::StatusOr<ExpertLease> lease) {
  std::vector<QueuedBatch> refused;
  {
    const absl::MutexLock lock(&mutex_);
    std::optional<QueuedBatch> queued = queue_.Unpark(ticket);
    if (!queued.has_value()) {
      return;  // It is wanted no more.
    }
    if (lease.ok()) {
      queued->batch->lease = *std::move(lease);
      queue_.Add(*std::move(queued));
      work_.Signal();
    } else {
      refused.push_back(*std::move(queued));
      metrics_->SetQueue(queue_.batches(), queue_.rows());
    }
  }
  Refuse(&refused, lease.status());
}

absl::StatusOr<QueuedBatch> Executor::Accept(StreamId stream,
                                             std::unique_ptr<ReceivedBatch> batch) {
  if (stopping_) {
    return StoppingError();
  }
  std::shared_ptr<FrameSink> replies = streams_.RepliesOf(stream);
  if (replies == nullptr) {
    return absl::UnavailableError("the stream is closed");
  }
  RETURN_IF_ERROR(queue_.CheckRoom(*batch));
  RETURN_IF_ERROR(streams_.AddBatch(stream, batch->batch_id));
  ++batches_in_flight_;
  rows_in_flight_ += batch->total_rows;
  return QueuedBatch{stream, std::move(replies), std::move(batch)};
}

Executor::Load Executor::load() const {
  const absl::MutexLock lock(&mutex_);
  return {batches_in_flight_, rows_in_flight_, queue_.rows()};
}

bool Executor::AwaitIdle(absl::Time deadline) const {
  const absl::MutexLock lock(&mutex_);
  while (batches_in_flight_ > 0) {
    if (clock_->WaitUntil(&mutex_, &idle_, deadline)) {
      return batches_in_flight_ == 0;
    }
  }
  return true;
}

void Executor::Stop() {
  std::vector<QueuedBatch> left;
  {
    const absl::MutexLock lock(&mutex_);
    stopping_ = true;
    left = queue_.TakeAll();
    metrics_->SetQueue(queue_.batches(), queue_.rows());
    work_.SignalAll();
  }
  Refuse(&left, StoppingError());
  {
    const absl::MutexLock lock(&join_mutex_);
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  // A network thread may be computing, and the backend, too.
  const absl::MutexLock lock(&mutex_);
  while (free_runs_.size() < runs_.size()) {
    work_.Wait(&mutex_);
  }
}

void Executor::SubmitGroups() {
  while (true) {
    Run* run = nullptr;
    {
      const absl::MutexLock lock(&mutex_);
      while (!stopping_ && (queue_.empty() || free_runs_.empty())) {
        work_.Wait(&mutex_);
      }
      if (stopping_) {
        return;
      }
      run = TakeGroup();
    }
    Submit(run);
  }
}

Executor::Run* Executor::TakeGroup() {
  Run* const run = free_runs_.back();
  free_runs_.pop_back();
  queue_.TakeGroup(clock_->Now(), &run->group);
  metrics_->SetQueue(queue_.batches(), queue_.rows());
  return run;
}

void Executor::Submit(Run* run) {
  std::vector<QueuedBatch>& batches = run->group.batches;
  Refuse(&run->group.expired,
         absl::DeadlineExceededError("timeout_us: the deadline passed while the batch waited "
                                     "to be computed; allow more time, or send less"));
  DropUnwanted(&batches);
  if (batches.empty()) {
    Release(run);
    return;
  }
  const absl::Time now = clock_->Now();
  const Merge merge{merges_.fetch_add(1, std::memory_order_relaxed) + 1,
                    static_cast<uint32_t>(batches.size())};
  for (QueuedBatch& queued : batches) {
    queued.batch->times.started = now;
    queued.batch->merge = merge;
  }
  run->merged.Merge(batches, backend_->compute_dtype());
  backend_->Submit(run->merged.grouped(),
                   [this, run](absl::Status status) { Complete(run, status); });
}

void Executor::Complete(Run* run, const absl::Status& status) {
  const absl::Time now = clock_->Now();
  std::vector<QueuedBatch>& batches = run->group.batches;
  for (QueuedBatch& queued : batches) {
    queued.batch->times.computed = now;
    // Received bytes and experts are done with; slow readers shall not keep them.
    queued.batch->parts.clear();
    queued.batch->lease.Release();
    queued.batch->hosted.reset();
  }
  if (status.ok()) {
    SendPartials(run);
  } else {
    Refuse(&batches, WithContext(absl::StrCat("layer ", run->merged.layer()), status));
  }
  run->merged.ReleasePartials();
  Release(run);
}

void Executor::SendPartials(Run* run) {
  const MergedBatch& merged = run->merged;
  std::vector<QueuedBatch>& batches = run->group.batches;
  metrics_->RecordComputed(merged.layer(), batches.size(), merged.token_rows(),
                           batches.front().batch->times.computing(), merged.assignments());
  if (merged.nonfinite_rows() > 0) {
    metrics_->CountNonFinite(merged.nonfinite_rows());
  }
  ReleaseIds(batches);
  size_t first_row = 0;
  for (const QueuedBatch& queued : batches) {
    if (!reply_sender_->SendPartials(queued, merged, first_row)) {
      DropStream(queued.stream);
    }
    first_row += queued.batch->answer_rows();
  }
  CountAnswered(batches.size(), merged.token_rows());
  batches.clear();
}

void Executor::Release(Run* run) {
  const absl::MutexLock lock(&mutex_);
  free_runs_.push_back(run);
  if (stopping_ || !queue_.empty()) {
    work_.SignalAll();
  }
}

void Executor::Refuse(std::vector<QueuedBatch>* batches, const absl::Status& status) {
  if (batches->empty()) {
    return;
  }
  ReleaseIds(*batches);
  const size_t count = batches->size();
  const uint64_t rows = RowsOf(*batches);
  for (const QueuedBatch& queued : *batches) {
    reply_sender_->SendError(*queued.replies, queued.batch->batch_id, status);
  }
  batches->clear();
  CountAnswered(count, rows);
}

void Executor::ReleaseIds(const std::vector<QueuedBatch>& batches) {
  const absl::MutexLock lock(&mutex_);
  for (const QueuedBatch& queued : batches) {
    streams_.RemoveBatch(queued.stream, queued.batch->batch_id);
  }
}

void Executor::CountAnswered(size_t batches, uint64_t rows) {
  const absl::MutexLock lock(&mutex_);
  batches_in_flight_ -= static_cast<uint32_t>(batches);
  rows_in_flight_ -= rows;
  if (batches_in_flight_ == 0) {
    idle_.SignalAll();
  }
}

}  // namespace expertmesh::node
