#include "common/experts/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <deque>
#include <thread>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"
#include "common/experts/check_batch.h"
#include "common/experts/check_expert.h"
#include "common/experts/cuda/batch_slot.h"
#include "common/experts/cuda/cuda_expert.h"
#include "common/experts/cuda/device_state.h"
#include "common/experts/cuda/expert_uploader.h"
#include "common/experts/cuda/kernels.h"
#include "common/model/expert_slice.h"

namespace expertmesh::experts {
namespace {

constexpr size_t kSlots = 2;

class CudaBackend final : public Backend {
 public:
  CudaBackend(const CudaBackendOptions& options, std::shared_ptr<DeviceState> state,
              std::vector<std::unique_ptr<BatchSlot>> slots);
  ~CudaBackend() override;

  absl::string_view name() const override { return "cuda"; }
  Dtype compute_dtype() const override { return dtype_; }
  size_t preferred_in_flight() const override { return kSlots; }

  absl::StatusOr<std::shared_ptr<const PackedExpert>> Pack(const ExpertOptions& options,
                                                           const ExpertWeights& weights,
                                                           IntermediateSlice slice) override;
  absl::StatusOr<uint64_t> PackedBytes(const ExpertOptions& options, const ExpertWeights& weights,
                                       IntermediateSlice slice) override;
  void Submit(const GroupedBatch& batch, Completion done) override;

 private:
  struct Job {
    GroupedBatch batch;
    Completion done;
  };

  // A slot with the thread that waits for it.
  struct Lane {
    explicit Lane(std::unique_ptr<BatchSlot> its_slot) : slot(std::move(its_slot)) {}
    const std::unique_ptr<BatchSlot> slot;
    // Used by the Submit that took the lane, then by its thread.
    Job job;
    absl::Status started;
    bool ready = false;  // `job` was started; guarded by mutex_.
    std::thread thread;
  };

  absl::Status CheckExperts(const GroupedBatch& batch) const;
  absl::StatusOr<PackedShape> ShapeOf(const ExpertOptions& options, const ExpertWeights& weights,
                                      IntermediateSlice slice) const;
  absl::StatusOr<std::unique_ptr<ExpertUploader>> TakeUploader();
  void StartJob(Lane& lane);
  void RunLane(Lane& lane);
  absl::Status FinishJob(Lane& lane);
  // Takes the next job for `lane`; false: there is none, and the lane is free.
  bool NextJob(Lane& lane);
  void End(Completion done, absl::Status status);

  const Dtype dtype_;
  const Arrangement arrangement_;
  const std::shared_ptr<DeviceState> state_;

  absl::Mutex uploaders_mutex_;
  std::vector<std::unique_ptr<ExpertUploader>> uploaders_ ABSL_GUARDED_BY(uploaders_mutex_);

  absl::Mutex mutex_;
  std::deque<Job> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<Lane*> free_ ABSL_GUARDED_BY(mutex_);
  size_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;  // Submits whose completions have not returned.
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

CudaBackend::CudaBackend(const CudaBackendOptions& options, std::shared_ptr<DeviceState> state,
                         std::vector<std::unique_ptr<BatchSlot>> slots)
    : dtype_(options.compute_dtype),
      arrangement_(slots.front()->arrangement()),
      state_(std::move(state)) {
  for (std::unique_ptr<BatchSlot>& slot : slots) {
    lanes_.push_back(std::make_unique<Lane>(std::move(slot)));
    free_.push_back(lanes_.back().get());
  }
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    lane->thread = std::thread([this, &lane = *lane] { RunLane(lane); });
  }
}

CudaBackend::~CudaBackend() {
  {
    const absl::MutexLock lock(&mutex_);
    const auto ended = [](size_t* in_flight) { return *in_flight == 0; };
    mutex_.Await(absl::Condition(+ended, &in_flight_));
    ending_ = true;
  }
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    lane->thread.join();
  }
}

absl::StatusOr<PackedShape> CudaBackend::ShapeOf(const ExpertOptions& options,
                                                 const ExpertWeights& weights,
                                                 IntermediateSlice slice) const {
  RETURN_IF_ERROR(CheckExpert(options, weights, slice));
  return PackedShape{dtype_, arrangement_, options.d_model, options.intermediate_size / slice.count,
                     options.gated};
}

absl::StatusOr<uint64_t> CudaBackend::PackedBytes(const ExpertOptions& options,
                                                  const ExpertWeights& weights,
                                                  IntermediateSlice slice) {
  ASSIGN_OR_RETURN(const PackedShape shape, ShapeOf(options, weights, slice));
  return ExpertParts(shape, SliceOf(weights, slice)).bytes;
}

absl::StatusOr<std::unique_ptr<ExpertUploader>> CudaBackend::TakeUploader() {
  {
    const absl::MutexLock lock(&uploaders_mutex_);
    if (!uploaders_.empty()) {
      std::unique_ptr<ExpertUploader> uploader = std::move(uploaders_.back());
      uploaders_.pop_back();
      return uploader;
    }
  }
  return ExpertUploader::Create(state_->device());
}

absl::StatusOr<std::shared_ptr<const PackedExpert>> CudaBackend::Pack(const ExpertOptions& options,
                                                                      const ExpertWeights& weights,
                                                                      IntermediateSlice slice) {
  ASSIGN_OR_RETURN(const PackedShape shape, ShapeOf(options, weights, slice));
  RETURN_IF_ERROR(state_->lost());
  const ExpertWeights part = SliceOf(weights, slice);
  absl::StatusOr<std::unique_ptr<ExpertUploader>> uploader = TakeUploader();
  RETURN_IF_ERROR(state_->Observe(uploader.status()));
  absl::StatusOr<std::shared_ptr<CudaExpert>> expert =
      CudaExpert::Allocate(state_, shape, options, part);
  absl::Status status = expert.status();
  if (status.ok()) {
    status = (*uploader)->Upload(part, **expert);
  }
  {
    const absl::MutexLock lock(&uploaders_mutex_);
    uploaders_.push_back(*std::move(uploader));
  }
  RETURN_IF_ERROR(state_->Observe(std::move(status)));
  return *std::move(expert);
}

absl::Status CudaBackend::CheckExperts(const GroupedBatch& batch) const {
  for (const PackedExpert* const each : batch.experts) {
    // There may be very many: a dynamic_cast of each would show.
    const auto* const expert = each != nullptr && typeid(*each) == typeid(CudaExpert)
                                   ? static_cast<const CudaExpert*>(each)
                                   : nullptr;
    if (expert == nullptr || expert->state() != state_.get()) {
      return absl::InvalidArgumentError("a batch names an expert that this backend did not pack");
    }
    if (expert->shape().d_model != batch.d_model) {
      return absl::InvalidArgumentError(absl::StrCat("a batch of d_model ", batch.d_model,
                                                     " names an expert of d_model ",
                                                     expert->shape().d_model));
    }
  }
  return absl::OkStatus();
}

void CudaBackend::Submit(const GroupedBatch& batch, Completion done) {
  absl::Status status = CheckBatch(batch);
  if (status.ok()) {
    status = CheckExperts(batch);
  }
  if (status.ok()) {
    status = state_->lost();
  }
  Lane* lane = nullptr;
  {
    const absl::MutexLock lock(&mutex_);
    ++in_flight_;
    if (status.ok() && batch.rows > 0) {
      if (free_.empty()) {
        waiting_.push_back({batch, std::move(done)});
        return;
      }
      lane = free_.back();
      free_.pop_back();
    }
  }
  if (lane == nullptr) {
    End(std::move(done), std::move(status));
    return;
  }
  lane->job = {batch, std::move(done)};
  StartJob(*lane);
  const absl::MutexLock lock(&mutex_);
  lane->ready = true;
}

void CudaBackend::StartJob(Lane& lane) {
  lane.started = state_->lost();
  if (lane.started.ok()) {
    lane.started = state_->Observe(lane.slot->Start(lane.job.batch, 0));
  }
}

absl::Status CudaBackend::FinishJob(Lane& lane) {
  absl::Status status = std::move(lane.started);
  while (status.ok()) {
    status = state_->Observe(lane.slot->Finish());
    const size_t end = lane.slot->end_row();
    if (!status.ok() || end == lane.job.batch.rows) {
      break;
    }
    status = state_->Observe(lane.slot->Start(lane.job.batch, end));
  }
  return status;
}

bool CudaBackend::NextJob(Lane& lane) {
  const absl::MutexLock lock(&mutex_);
  if (waiting_.empty()) {
    lane.ready = false;
    free_.push_back(&lane);
    return false;
  }
  lane.job = std::move(waiting_.front());
  waiting_.pop_front();
  return true;
}

void CudaBackend::RunLane(Lane& lane) {
  while (true) {
    {
      const absl::MutexLock lock(&mutex_);
      const auto has_work = [this, &lane]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return lane.ready || ending_;
      };
      mutex_.Await(absl::Condition(&has_work));
      if (!lane.ready) {
        return;
      }
    }
    absl::Status status = FinishJob(lane);
    Completion done = std::move(lane.job.done);
    // The device gets its next batch before the end of this one is told.
    if (NextJob(lane)) {
      StartJob(lane);
    }
    End(std::move(done), std::move(status));
  }
}

void CudaBackend::End(Completion done, absl::Status status) {
  std::move(done)(std::move(status));
  const absl::MutexLock lock(&mutex_);
  --in_flight_;
}

absl::Status CheckOptions(const CudaBackendOptions& options) {
  if (options.compute_dtype != Dtype::kF32 && options.compute_dtype != Dtype::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("compute_dtype ", NameOf(options.compute_dtype),
                                                   " must be F32 or BF16 on a GPU"));
  }
  if (options.weights != WeightStorage::kExpanded) {
    return absl::UnimplementedError(
        "weights that are kept compressed are not for GPUs; use --weights expanded");
  }
  int devices = 0;  // A call that fails leaves it as it is.
  RETURN_IF_ERROR(cuda::ToStatus(cudaGetDeviceCount(&devices), "cudaGetDeviceCount"));
  if (options.device < 0 || options.device >= devices) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no GPU ", options.device, "; the process sees ", devices));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  RETURN_IF_ERROR(cuda::ToStatus(cudaSetDevice(options.device), "cudaSetDevice"));
  RETURN_IF_ERROR(cuda::ToStatus(PrepareKernels(), "cudaFuncSetAttribute"));
  std::vector<std::unique_ptr<BatchSlot>> slots;
  while (slots.size() < kSlots) {
    ASSIGN_OR_RETURN(std::unique_ptr<BatchSlot> slot, BatchSlot::Create(options));
    slots.push_back(std::move(slot));
  }
  auto state = std::make_shared<DeviceState>(options.device, options.device_memory_bytes,
                                             options.on_device_lost);
  return std::make_unique<CudaBackend>(options, std::move(state), std::move(slots));
}

}  // namespace expertmesh::experts
