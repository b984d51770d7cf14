#include "common/experts/cpu_backend.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/experts/check_batch.h"
#include "common/experts/check_expert.h"
#include "common/experts/cpu_compute.h"
#include "common/experts/cpu_expert.h"
#include "common/experts/matmul.h"
#include "common/model/expert_slice.h"

namespace expertmesh::experts {
namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(const CpuBackendOptions& options, int threads)
      : dtype_(options.compute_dtype),
        storage_(options.weights),
        huge_pages_(options.huge_pages),
        compute_(options.compute_dtype, threads, options.max_scratch_bytes) {}

  ~CpuBackend() override;

  absl::string_view name() const override { return "cpu"; }
  Dtype compute_dtype() const override { return dtype_; }
  // Each batch takes all threads.
  size_t preferred_in_flight() const override { return 1; }

  absl::StatusOr<std::shared_ptr<const PackedExpert>> Pack(const ExpertOptions& options,
                                                           const ExpertWeights& weights,
                                                           IntermediateSlice slice) override;
  absl::StatusOr<uint64_t> PackedBytes(const ExpertOptions& options, const ExpertWeights& weights,
                                       IntermediateSlice slice) override;
  void Submit(const GroupedBatch& batch, Completion done) override;

 private:
  // What Pack checks and makes before it packs.
  struct Prepared {
    ExpertSizes sizes;
    ExpertWeights weights;  // The slice of the weights.
    std::shared_ptr<const MatmulShape> up;
    std::shared_ptr<const MatmulShape> down;
  };

  std::shared_ptr<const MatmulShape> ShapeOf(size_t inner, size_t columns);
  absl::StatusOr<Prepared> Prepare(const ExpertOptions& options, const ExpertWeights& weights,
                                   IntermediateSlice slice);

  // Around each Submit, so that the destructor can wait for it. A call that computes waits for its
  // turn, which it ends when it has computed.
  void BeginSubmit(bool computes);
  void EndTurn();
  void EndSubmit();

  const Dtype dtype_;
  const WeightStorage storage_;
  const bool huge_pages_;

  absl::Mutex shapes_mutex_;
  absl::flat_hash_map<std::pair<size_t, size_t>, std::shared_ptr<const MatmulShape>> shapes_
      ABSL_GUARDED_BY(shapes_mutex_);

  absl::Mutex mutex_;
  bool computing_ ABSL_GUARDED_BY(mutex_) = false;
  int submits_ ABSL_GUARDED_BY(mutex_) = 0;  // Submit calls that have not ended.
  CpuCompute compute_;                       // Used by the call that has the turn.
};

std::shared_ptr<const MatmulShape> CpuBackend::ShapeOf(size_t inner, size_t columns) {
  absl::MutexLock lock(&shapes_mutex_);
  std::shared_ptr<const MatmulShape>& shape = shapes_[{inner, columns}];
  if (shape == nullptr) {
    shape = std::make_shared<const MatmulShape>(dtype_, inner, columns);
  }
  return shape;
}

absl::StatusOr<CpuBackend::Prepared> CpuBackend::Prepare(const ExpertOptions& options,
                                                         const ExpertWeights& weights,
                                                         IntermediateSlice slice) {
  Prepared prepared;
  RETURN_IF_ERROR(CheckExpert(options, weights, slice));
  prepared.sizes = {options.d_model, options.intermediate_size / slice.count, options.gated};
  prepared.weights = SliceOf(weights, slice);
  const ExpertSizes& sizes = prepared.sizes;
  prepared.up = ShapeOf(sizes.up_inner(), sizes.up_columns());
  prepared.down = ShapeOf(sizes.down_inner(), sizes.down_columns());
  return prepared;
}

absl::StatusOr<std::shared_ptr<const PackedExpert>> CpuBackend::Pack(const ExpertOptions& options,
                                                                     const ExpertWeights& weights,
                                                                     IntermediateSlice slice) {
  ASSIGN_OR_RETURN(Prepared prepared, Prepare(options, weights, slice));
  return CpuExpert::Pack(options, prepared.sizes, prepared.weights, std::move(prepared.up),
                         std::move(prepared.down), storage_, huge_pages_);
}

absl::StatusOr<uint64_t> CpuBackend::PackedBytes(const ExpertOptions& options,
                                                 const ExpertWeights& weights,
                                                 IntermediateSlice slice) {
  ASSIGN_OR_RETURN(const Prepared prepared, Prepare(options, weights, slice));
  return CpuExpert::PackedBytes(prepared.sizes, prepared.weights, *prepared.up, *prepared.down,
                                storage_);
}

CpuBackend::~CpuBackend() {
  const absl::MutexLock lock(&mutex_);
  const auto ended = [](int* submits) { return *submits == 0; };
  mutex_.Await(absl::Condition(+ended, &submits_));
}

// A flag and not the mutex itself: no lock is held while a batch computes.
void CpuBackend::BeginSubmit(bool computes) {
  const absl::MutexLock lock(&mutex_);
  ++submits_;
  if (computes) {
    const auto is_free = [](bool* computing) { return !*computing; };
    mutex_.Await(absl::Condition(+is_free, &computing_));
    computing_ = true;
  }
}

void CpuBackend::EndSubmit() {
  const absl::MutexLock lock(&mutex_);
  --submits_;
}

void CpuBackend::EndTurn() {
  const absl::MutexLock lock(&mutex_);
  computing_ = false;
}

void CpuBackend::Submit(const GroupedBatch& batch, Completion done) {
  absl::Status status = CheckBatch(batch);
  const bool computes = status.ok() && batch.rows > 0;
  BeginSubmit(computes);
  if (computes) {
    status = compute_.Run(batch);
    EndTurn();
  }
  std::move(done)(std::move(status));
  EndSubmit();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options) {
  if (options.compute_dtype != Dtype::kF32 && options.compute_dtype != Dtype::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("compute_dtype ", NameOf(options.compute_dtype),
                                                   " must be F32 or BF16 on the CPU"));
  }
  if (options.threads < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads must be 0 (one per available core) or more; was ", options.threads));
  }
  const int threads = options.threads == 0 ? AvailableCores() : options.threads;
  return std::make_unique<CpuBackend>(options, threads);
}

}  // namespace expertmesh::experts
