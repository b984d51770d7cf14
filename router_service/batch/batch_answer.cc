// The end of a batch: sums partials and answers each request with its rows.
#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/message_bytes.h"
#include "common/base/status_macros.h"
#include "common/wire/tensor_encode.h"
#include "router_service/batch/batch_run.h"
#include "router_service/batch/combine.h"

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

  absl::Status ToStatus(DType dtype) {
    absl::MutexLock lock(&mutex_);
    if (row_ == kNone) {
      return absl::OkStatus();
    }
    return absl::OutOfRangeError(absl::StrCat(
        "output: token ", row_, " has a value of magnitude ", largest_, ", which ", NameOf(dtype),
        " cannot hold; set output_dtype to a wider type (F32 holds all)"));
  }

 private:
  static constexpr size_t kNone = ~size_t{0};

  absl::Mutex mutex_;
  size_t row_ ABSL_GUARDED_BY(mutex_) = kNone;
  float largest_ ABSL_GUARDED_BY(mutex_) = 0.0f;
};

}  // namespace

void BatchRun::CollectContributions() {
  absl::MutexLock lock(&mutex_);
  contributions_.clear();
  for (const std::shared_ptr<BatchPart>& part : parts_) {
    if (part->contributes) {
      contributions_.push_back(part.get());
    }
  }
  // Placement order; several of one node by first row, then first expert. Arrival plays no part.
  const auto place = [](const BatchPart* part) {
    const plan::NodePlan& plan = part->plan;
    return std::make_tuple(plan.node, plan.rows.front(), plan.expert_ids.front());
  };
  std::sort(contributions_.begin(), contributions_.end(),
            [&place](const auto* a, const auto* b) { return place(a) < place(b); });
  by_row_.clear();
  by_assignment_.clear();
  for (const BatchPart* part : contributions_) {
    const Partials partials = {part->partials->data(), part->kept_dtype};
    if (environment_->strict) {
      by_assignment_.push_back(
          {&part->plan, part->placement->Layer(layer_->description.layer), partials});
    } else {
      by_row_.push_back({part->plan.rows, partials});
    }
  }
  if (environment_->strict) {
    FindSlotPartials(routed_, by_assignment_, environment_->d_model, &slot_partials_);
  }
}

void BatchRun::SumRows(RowRange range, float* sum) const {
  const size_t d_model = environment_->d_model;
  const float* const shared =
      layer_->shared_expert == nullptr ? nullptr : shared_output_->as<float>();
  if (environment_->strict) {
    CombineInSlotOrder(routed_, slot_partials_, shared, range, d_model, sum);
  } else {
    Combine(by_row_, shared, range, d_model, sum);
  }
  if (layer_->description.routing.pass_through == PassThrough::kComplement) {
    AddComplements(routed_, hidden_states_->data(), environment_->activation_dtype, range, d_model,
                   sum);
  }
}

void BatchRun::WriteTiming(absl::Time received_at) {
  uint32_t nodes = 0;
  const BatchPart* slowest = nullptr;
  const BatchPart* before = nullptr;
  for (const BatchPart* part : contributions_) {
    nodes += before == nullptr || before->plan.node != part->plan.node ? 1 : 0;
    before = part;
    if (slowest == nullptr ||
        part->queue_us + part->compute_us > slowest->queue_us + slowest->compute_us) {
      slowest = part;
    }
  }
  v1::ForwardTiming& timing = *response_.mutable_timing();
  timing.set_route_us(ToMicros(dispatched_at_ - closed_at_));
  timing.set_experts_us(ToMicros(received_at - dispatched_at_));
  timing.set_batch_tokens(rows_);
  timing.set_nodes(nodes);
  timing.set_node_queue_us(slowest == nullptr ? 0 : slowest->queue_us);
  timing.set_node_compute_us(slowest == nullptr ? 0 : slowest->compute_us);
}

absl::StatusOr<TensorFrame> BatchRun::Output(const ForwardJob& job, size_t first) const {
  const size_t d_model = environment_->d_model;
  const size_t rows = job.rows();
  RowEncoder encoder(DType::kF32, rows, d_model, job.output_dtype(), environment_->buffers);
  const bool converts = job.output_dtype() != DType::kF32;
  BeyondRange beyond;
  environment_->pool->ParallelFor((rows + kRowsTogether - 1) / kRowsTogether, [&](size_t block) {
    thread_local AlignedBuffer sums;
    const size_t begin = block * kRowsTogether;
    const size_t count = std::min(kRowsTogether, rows - begin);
    if (!converts) {
      SumRows({first + begin, count}, static_cast<float*>(encoder.Place(begin)));
      return;
    }
    sums.Resize(count * d_model * sizeof(float));
    SumRows({first + begin, count}, sums.as<float>());
    for (size_t row = 0; row < count; ++row) {
      if (!encoder.Encode(begin + row, sums.as<float>() + row * d_model)) {
        beyond.Found(begin + row,
                     LargestFinite(DType::kF32, sums.as<float>() + row * d_model, d_model));
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

void BatchRun::WriteResponse(const ForwardJob& job, size_t first) {
  response_.mutable_status();  // OK
  response_.set_epoch(epoch_.load());
  response_.clear_dropped();
  WriteDropped(first, job.rows(), &response_);
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
  WriteRouting(first, job.rows(), &routing);
}

void BatchRun::CombineAndAnswer() {
  const absl::Time received_at = environment_->clock->Now();
  CollectContributions();
  WriteTiming(received_at);
  for (size_t i = 0; i < jobs_.size(); ++i) {
    ForwardJob& job = *jobs_[i];
    absl::StatusOr<TensorFrame> output = Output(job, first_row_of_job_[i]);
    if (!output.ok()) {
      job.Fail(output.status());
      continue;
    }
    WriteResponse(job, first_row_of_job_[i]);
    v1::ForwardTiming& timing = *response_.mutable_timing();
    timing.set_queue_us(ToMicros(closed_at_ - job.arrival()));
    timing.set_combine_us(ToMicros(environment_->clock->Now() - received_at));
    job.Answer(&response_, *std::move(output));
  }
  for (BatchPart* const part : contributions_) {
    environment_->node_plans->Recycle(std::move(part->plan));
  }
}

void BatchRun::WriteRouting(size_t first, size_t rows, v1::Routing* routing) const {
  const RoutingOptions& options = layer_->description.routing;
  const auto begin = routed_.token_begin.begin() + static_cast<ptrdiff_t>(first);
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
  routing->mutable_expert_ids()->Add(routed_.expert_ids.begin() + begin[0],
                                     routed_.expert_ids.begin() + begin[rows]);
  routing->mutable_expert_weights()->Add(routed_.weights.begin() + begin[0],
                                         routed_.weights.begin() + begin[rows]);
}

void BatchRun::WriteDropped(size_t first, size_t rows, v1::ForwardResponse* response) const {
  const auto by_token = [](const gate::DroppedAssignment& dropped, size_t token) {
    return dropped.token < token;
  };
  auto dropped = std::lower_bound(routed_.dropped.begin(), routed_.dropped.end(), first, by_token);
  for (; dropped != routed_.dropped.end() && dropped->token < first + rows; ++dropped) {
    v1::DroppedAssignment& told = *response->add_dropped();
    told.set_token(dropped->token - static_cast<uint32_t>(first));
    told.set_expert(dropped->expert);
  }
}

}  // namespace expertmesh::batch
