#include "router_service/batch/answer_stage.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/message_bytes.h"
#include "common/base/status_macros.h"
#include "common/wire/error_reason.h"
#include "common/wire/tensor_encode.h"

namespace expertmesh::batch {
namespace {

// Summed and converted at a time: their sums stay in the cache of the thread that does both.
constexpr size_t kRowsTogether = 8;

// The first row whose finite values the type of the output cannot hold, found by any thread.
class BeyondRange {
 public:
  void Found(size_t row, float largest) {
    absl::MutexLock lock(&mutex_);
    if (row < row_) {
      row_ = row;
      largest_ = largest;
    }
  }

  absl::Status ToStatus(Dtype dtype) {
    absl::MutexLock lock(&mutex_);
    if (row_ == kNone) {
      return absl::OkStatus();
    }
    return ErrorOf(v1::ERROR_REASON_OUTPUT_OUT_OF_RANGE,
                   absl::StrCat("output: token ", row_, " has a value of magnitude ", largest_,
                                ", which ", NameOf(dtype),
                                " cannot hold; set output_dtype to a wider type (F32 holds all)"),
                   {{"token", absl::StrCat(row_)}});
  }

 private:
  static constexpr size_t kNone = ~size_t{0};

  absl::Mutex mutex_;
  size_t row_ ABSL_GUARDED_BY(mutex_) = kNone;
  float largest_ ABSL_GUARDED_BY(mutex_) = 0.0f;
};

// Writes how the rows [first, first + rows) of the batch were routed.
void WriteRouting(const Batch& batch, size_t first, size_t rows, v1::Routing* routing) {
  const RoutingOptions& options = batch.layer->description.routing;
  const gate::RoutedTokens& routed = batch.routed;
  const auto begin = routed.token_begin.begin() + static_cast<ptrdiff_t>(first);
  bool uniform = options.choice != Choice::kExpertChoice;
  for (size_t row = 0; row < rows && uniform; ++row) {
    uniform = begin[row + 1] - begin[row] == options.top_k;
  }
  if (uniform) {
    routing->set_experts_per_token(options.top_k);
  } else {
    for (size_t row = 0; row < rows; ++row) {
      routing->add_assignments_per_token(begin[row + 1] - begin[row]);
    }
  }
  routing->mutable_expert_ids()->Add(routed.expert_ids.begin() + begin[0],
                                     routed.expert_ids.begin() + begin[rows]);
  routing->mutable_expert_weights()->Add(routed.weights.begin() + begin[0],
                                         routed.weights.begin() + begin[rows]);
}

void WriteDropped(const Batch& batch, size_t first, size_t rows, v1::ForwardResponse* response) {
  const std::vector<gate::DroppedAssignment>& all = batch.routed.dropped;
  const auto by_token = [](const gate::DroppedAssignment& dropped, size_t token) {
    return dropped.token < token;
  };
  auto dropped = std::lower_bound(all.begin(), all.end(), first, by_token);
  for (; dropped != all.end() && dropped->token < first + rows; ++dropped) {
    v1::DroppedAssignment& written = *response->add_dropped();
    written.set_token(dropped->token - static_cast<uint32_t>(first));
    written.set_expert(dropped->expert);
  }
}

uint64_t TimeAtNode(const BatchPart& part) { return part.report.queue_us + part.report.compute_us; }

}  // namespace

void AnswerStage::WriteTiming(const Batch& batch, const CombineStage& combined) {
  uint32_t nodes = 0;
  const BatchPart* slowest = nullptr;
  const BatchPart* before = nullptr;
  for (const BatchPart* part : combined.contributing()) {
    nodes += before == nullptr || before->plan.node != part->plan.node ? 1 : 0;
    before = part;
    if (slowest == nullptr || TimeAtNode(*part) > TimeAtNode(*slowest)) {
      slowest = part;
    }
  }
  const StageTimes& times = batch.times;
  v1::ForwardTiming& timing = *response_.mutable_timing();
  timing.set_route_us(ToMicros(times.dispatched - times.closed));
  timing.set_experts_us(ToMicros(times.received - times.dispatched));
  timing.set_batch_tokens(batch.requests.rows());
  timing.set_nodes(nodes);
  timing.set_node_queue_us(slowest == nullptr ? 0 : slowest->report.queue_us);
  timing.set_node_compute_us(slowest == nullptr ? 0 : slowest->report.compute_us);
}

absl::StatusOr<TensorFrame> AnswerStage::Output(const Batch& batch, const CombineStage& combined,
                                                const ForwardJob& job, size_t first) {
  const size_t d_model = batch.environment->d_model;
  ThreadPool& pool = *batch.environment->pool;
  const size_t rows = job.rows();
  RowEncoder encoder(Dtype::kF32, rows, d_model, job.output_dtype(), batch.environment->buffers);
  const bool converts = job.output_dtype() != Dtype::kF32;
  if (converts && sums_.size() < pool.slots()) {
    sums_.resize(pool.slots());
  }
  BeyondRange beyond;
  pool.ParallelFor((rows + kRowsTogether - 1) / kRowsTogether, [&](size_t block, size_t slot) {
    const size_t begin = block * kRowsTogether;
    const size_t count = std::min(kRowsTogether, rows - begin);
    if (!converts) {
      combined.Sum({first + begin, count}, static_cast<float*>(encoder.Place(begin)));
      return;
    }
    AlignedBuffer& sums = sums_[slot];
    sums.Resize(count * d_model * sizeof(float));
    combined.Sum({first + begin, count}, sums.as<float>());
    for (size_t row = 0; row < count; ++row) {
      const float* const sum = sums.as<float>() + row * d_model;
      if (!encoder.Encode(begin + row, sum)) {
        beyond.Found(begin + row, LargestFinite(Dtype::kF32, sum, d_model));
      }
    }
  });
  RETURN_IF_ERROR(beyond.ToStatus(job.output_dtype()));
  TensorFrame output = encoder.Finish();
  if (converts) {
    CountCopiedTensorBytes(output.data.size());
  }
  return output;
}

void AnswerStage::WriteResponse(const Batch& batch, const ForwardJob& job, size_t first) {
  response_.mutable_status();  // OK
  response_.set_epoch(batch.view->epoch());
  response_.clear_dropped();
  WriteDropped(batch, first, job.rows(), &response_);
  if (!job.request().return_routing()) {
    if (response_.has_routing()) {
      spare_routing_.reset(response_.release_routing());
    }
    return;
  }
  if (!response_.has_routing() && spare_routing_ != nullptr) {
    response_.set_allocated_routing(spare_routing_.release());
  }
  v1::Routing& routing = *response_.mutable_routing();
  routing.Clear();
  WriteRouting(batch, first, job.rows(), &routing);
}

void AnswerStage::Run(const Batch& batch, const CombineStage& combined) {
  Clock& clock = *batch.environment->clock;
  WriteTiming(batch, combined);
  for (size_t i = 0; i < batch.requests.jobs().size(); ++i) {
    ForwardJob& job = *batch.requests.jobs()[i];
    if (job.answered()) {
      continue;
    }
    const size_t first = batch.requests.first_row(i);
    absl::StatusOr<TensorFrame> output = Output(batch, combined, job, first);
    if (!output.ok()) {
      job.Fail(output.status());
      continue;
    }
    WriteResponse(batch, job, first);
    v1::ForwardTiming& timing = *response_.mutable_timing();
    timing.set_queue_us(ToMicros(batch.times.closed - job.arrival()));
    timing.set_combine_us(ToMicros(clock.Now() - batch.times.received));
    job.Answer(&response_, *std::move(output));
  }
}

size_t AnswerStage::MemoryBytes() const {
  size_t bytes = spare_routing_ == nullptr ? 0 : spare_routing_->SpaceUsedLong();
  bytes += response_.has_routing() ? response_.routing().SpaceUsedLong() : 0;
  for (const AlignedBuffer& sums : sums_) {
    bytes += sums.capacity();
  }
  return bytes;
}

}  // namespace expertmesh::batch
