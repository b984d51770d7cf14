#include "common/experts/cpu_backend.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/experts/batch_plan.h"
#include "common/experts/cpu_expert.h"
#include "common/experts/elementwise.h"
#include "common/experts/group_by_expert.h"
#include "common/experts/matmul.h"
#include "common/experts/weight_packer.h"
#include "common/experts/worker_team.h"
#include "common/model/expert_slice.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh {
namespace {

// Rows summed by one task.
constexpr uint32_t kSumRows = 8;
// Batches with less work than this are done before a worker would have woken up.
constexpr uint64_t kAloneCost = uint64_t{2} << 20;

using Block = BatchPlan::Block;

class CpuBackend final : public Backend {
 public:
  CpuBackend(const CpuBackendOptions& options, int threads)
      : dtype_(options.compute_dtype),
        element_(BytesOf(options.compute_dtype)),
        storage_(options.weights),
        huge_pages_(options.huge_pages),
        max_scratch_bytes_(options.max_scratch_bytes),
        ops_(GetElementwiseOps()),
        workers_(static_cast<size_t>(threads)),
        team_(threads, UseSingleThreadedOpenMP) {}

  absl::string_view name() const override { return "cpu"; }
  DType compute_dtype() const override { return dtype_; }

  absl::StatusOr<std::shared_ptr<const PackedExpert>> Pack(const ExpertOptions& options,
                                                           const ExpertWeights& weights,
                                                           IntermediateSlice slice) override;
  absl::StatusOr<uint64_t> PackedBytes(const ExpertOptions& options, const ExpertWeights& weights,
                                       IntermediateSlice slice) override;
  absl::Status Compute(const GroupedBatch& batch) override;

 private:
  struct Worker {
    MatmulRunner runner;
    AlignedBuffer rows;
    AlignedBuffer products;
    // For compressed experts: one expanded panel.
    WeightPacker packer;
    AlignedBuffer panel;
  };
  // What Pack checks and makes before it packs.
  struct Prepared {
    ExpertSizes sizes;
    ExpertWeights weights;  // Of the slice.
    std::shared_ptr<const MatmulShape> up;
    std::shared_ptr<const MatmulShape> down;
  };

  absl::StatusOr<std::shared_ptr<const MatmulShape>> ShapeOf(size_t inner, size_t columns);
  absl::StatusOr<Prepared> Prepare(const ExpertOptions& options, const ExpertWeights& weights,
                                   IntermediateSlice slice);

  // Waits for the turn of this call, and passes the turn on.
  void TakeTurn();
  void PassTurn();

  // The rest runs in a thread that has the turn, or in a worker that it set to work.
  absl::Status ComputeInTurn(const GroupedBatch& batch);
  absl::Status CheckExperts(const GroupedBatch& batch, size_t* bytes_per_assignment) const;
  absl::Status ComputeRows(const GroupedBatch& batch, size_t begin, size_t end);
  void FillRowOf(const GroupedBatch& batch, size_t begin, size_t end);
  void RunUp(const GroupedBatch& batch, Worker& worker, BatchPlan::Task task);
  void RunDown(Worker& worker, BatchPlan::Task task);
  void SumRow(const GroupedBatch& batch, size_t row) const;
  void Gather(const GroupedBatch& batch, const Block& block, uint8_t* x) const;
  void Activate(const Block& block, uint32_t panel, const float* products);
  void Note(absl::Status status);

  const DType dtype_;
  const size_t element_;
  const WeightStorage storage_;
  const bool huge_pages_;
  const size_t max_scratch_bytes_;
  const ElementwiseOps& ops_;

  absl::Mutex shapes_mutex_;
  absl::flat_hash_map<std::pair<size_t, size_t>, std::shared_ptr<const MatmulShape>> shapes_
      ABSL_GUARDED_BY(shapes_mutex_);

  absl::Mutex turn_mutex_;
  bool turn_taken_ ABSL_GUARDED_BY(turn_mutex_) = false;

  // Below: state of the call that has the turn.
  GroupByExpert groups_;
  BatchPlan plan_;
  std::vector<uint32_t> row_of_;  // Per assignment.
  size_t first_assignment_ = 0;   // Of the rows now computed.
  AlignedBuffer activations_;
  AlignedBuffer outputs_;
  TaskPhase up_phase_;
  TaskPhase down_phase_;
  TaskPhase sum_phase_;
  absl::Mutex status_mutex_;
  absl::Status status_ ABSL_GUARDED_BY(status_mutex_);
  std::vector<Worker> workers_;
  WorkerTeam team_;  // Last: its threads use the rest.
};

absl::StatusOr<std::shared_ptr<const MatmulShape>> CpuBackend::ShapeOf(size_t inner,
                                                                       size_t columns) {
  const std::pair<size_t, size_t> key(inner, columns);
  {
    absl::MutexLock lock(&shapes_mutex_);
    if (const auto found = shapes_.find(key); found != shapes_.end()) {
      return found->second;
    }
  }
  ASSIGN_OR_RETURN(std::shared_ptr<const MatmulShape> shape,
                   MatmulShape::Create(dtype_, inner, columns));
  absl::MutexLock lock(&shapes_mutex_);
  return shapes_.try_emplace(key, std::move(shape)).first->second;
}

absl::StatusOr<CpuBackend::Prepared> CpuBackend::Prepare(const ExpertOptions& options,
                                                         const ExpertWeights& weights,
                                                         IntermediateSlice slice) {
  Prepared prepared;
  ASSIGN_OR_RETURN(prepared.sizes, CheckExpert(options, weights, slice));
  prepared.weights = SliceOf(weights, slice);
  const ExpertSizes& sizes = prepared.sizes;
  ASSIGN_OR_RETURN(prepared.up, ShapeOf(sizes.up_inner(), sizes.up_columns()));
  ASSIGN_OR_RETURN(prepared.down, ShapeOf(sizes.down_inner(), sizes.down_columns()));
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

// A flag and not the mutex itself: no lock is held while a batch computes.
void CpuBackend::TakeTurn() {
  absl::MutexLock lock(&turn_mutex_);
  const auto is_free = [](bool* taken) { return !*taken; };
  turn_mutex_.Await(absl::Condition(+is_free, &turn_taken_));
  turn_taken_ = true;
}

void CpuBackend::PassTurn() {
  absl::MutexLock lock(&turn_mutex_);
  turn_taken_ = false;
}

absl::Status CheckBatch(const GroupedBatch& batch) {
  if (batch.row_begin.size() != batch.rows + 1 || batch.row_begin.front() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("row_begin must have rows + 1 = ", batch.rows + 1, " entries from 0 but has ",
                     batch.row_begin.size()));
  }
  if (!std::is_sorted(batch.row_begin.begin(), batch.row_begin.end())) {
    return absl::InvalidArgumentError("row_begin must not decrease");
  }
  const size_t assignments = batch.row_begin.back();
  if (batch.experts.size() != assignments || batch.weights.size() != assignments) {
    return absl::InvalidArgumentError(
        absl::StrCat("row_begin speaks of ", assignments, " assignments, but there are ",
                     batch.experts.size(), " experts and ", batch.weights.size(), " weights"));
  }
  if (batch.rows > 0 &&
      (batch.d_model == 0 || batch.hidden_states == nullptr || batch.partials == nullptr)) {
    return absl::InvalidArgumentError("d_model, hidden_states and partials must be set");
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::Compute(const GroupedBatch& batch) {
  RETURN_IF_ERROR(CheckBatch(batch));
  if (batch.rows == 0) {
    return absl::OkStatus();
  }
  TakeTurn();
  absl::Status status = ComputeInTurn(batch);
  PassTurn();
  return status;
}

absl::Status CpuBackend::CheckExperts(const GroupedBatch& batch,
                                      size_t* bytes_per_assignment) const {
  *bytes_per_assignment = 1;
  for (const GroupByExpert::Group& group : groups_.groups()) {
    const auto* expert = dynamic_cast<const CpuExpert*>(group.expert);
    if (expert == nullptr || expert->up().dtype() != dtype_) {
      return absl::InvalidArgumentError(absl::StrCat("a batch names an expert that no ",
                                                     NameOf(dtype_), " CPU backend has packed"));
    }
    if (expert->sizes().d_model != batch.d_model) {
      return absl::InvalidArgumentError(absl::StrCat("a batch of d_model ", batch.d_model,
                                                     " names an expert of d_model ",
                                                     expert->sizes().d_model));
    }
    *bytes_per_assignment =
        std::max(*bytes_per_assignment,
                 expert->down().inner() * element_ + expert->down().columns() * sizeof(float));
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::ComputeInTurn(const GroupedBatch& batch) {
  const SingleThreadedOpenMP single;
  groups_.Build(batch.experts);
  size_t bytes_per_assignment = 1;
  RETURN_IF_ERROR(CheckExperts(batch, &bytes_per_assignment));
  const size_t most = std::max<size_t>(1, max_scratch_bytes_ / bytes_per_assignment);
  if (batch.experts.size() <= most) {
    return ComputeRows(batch, 0, batch.rows);
  }
  for (size_t begin = 0; begin < batch.rows;) {
    size_t end = begin + 1;
    while (end < batch.rows && batch.row_begin[end + 1] - batch.row_begin[begin] <= most) {
      ++end;
    }
    const size_t first = batch.row_begin[begin];
    groups_.Build(batch.experts.subspan(first, batch.row_begin[end] - first));
    RETURN_IF_ERROR(ComputeRows(batch, begin, end));
    begin = end;
  }
  return absl::OkStatus();
}

void CpuBackend::FillRowOf(const GroupedBatch& batch, size_t begin, size_t end) {
  first_assignment_ = batch.row_begin[begin];
  row_of_.resize(batch.row_begin[end] - first_assignment_);
  for (size_t row = begin; row < end; ++row) {
    for (size_t a = batch.row_begin[row]; a < batch.row_begin[row + 1]; ++a) {
      row_of_[a - first_assignment_] = static_cast<uint32_t>(row);
    }
  }
}

// `groups_` holds the assignments of rows [begin, end).
absl::Status CpuBackend::ComputeRows(const GroupedBatch& batch, size_t begin, size_t end) {
  FillRowOf(batch, begin, end);
  plan_.Build(groups_, team_.threads());
  activations_.Resize(plan_.activation_bytes());
  outputs_.Resize(plan_.output_floats() * sizeof(float));
  const uint32_t rows = static_cast<uint32_t>(end - begin);
  up_phase_.Reset(static_cast<uint32_t>(plan_.up_tasks().size()));
  down_phase_.Reset(static_cast<uint32_t>(plan_.down_tasks().size()));
  sum_phase_.Reset((rows + kSumRows - 1) / kSumRows);
  const auto job = [&](int index) {
    Worker& worker = workers_[static_cast<size_t>(index)];
    up_phase_.Work([&](uint32_t task) { RunUp(batch, worker, plan_.up_tasks()[task]); });
    down_phase_.Work([&](uint32_t task) { RunDown(worker, plan_.down_tasks()[task]); });
    sum_phase_.Work([&](uint32_t task) {
      const size_t last = std::min<size_t>(end, begin + (size_t{task} + 1) * kSumRows);
      for (size_t row = begin + size_t{task} * kSumRows; row < last; ++row) {
        SumRow(batch, row);
      }
    });
  };
  team_.Run(job, /*alone=*/plan_.cost() < kAloneCost);
  absl::MutexLock lock(&status_mutex_);
  return std::exchange(status_, absl::OkStatus());
}

void CpuBackend::Gather(const GroupedBatch& batch, const Block& block, uint8_t* x) const {
  const auto* hidden = static_cast<const uint8_t*>(batch.hidden_states);
  for (const MatmulShape::Chunk& chunk : block.expert->up().chunks()) {
    const size_t row_bytes = chunk.inner * element_;
    const size_t filled =
        chunk.begin < batch.d_model ? std::min(chunk.inner, batch.d_model - chunk.begin) : 0;
    for (uint32_t r = 0; r < block.count; ++r) {
      const uint32_t a = groups_.order()[block.begin + r];
      const uint8_t* const from = hidden + (row_of_[a] * batch.d_model + chunk.begin) * element_;
      if (batch.apply == ApplyWeight::kOutput) {
        std::memcpy(x, from, filled * element_);
      } else if (dtype_ == DType::kBF16) {
        ops_.scale_bf16(batch.weights[first_assignment_ + a],
                        reinterpret_cast<const uint16_t*>(from), filled,
                        reinterpret_cast<uint16_t*>(x));
      } else {
        ops_.scale_f32(batch.weights[first_assignment_ + a], reinterpret_cast<const float*>(from),
                       filled, reinterpret_cast<float*>(x));
      }
      std::memset(x + filled * element_, 0, row_bytes - filled * element_);
      x += row_bytes;
    }
    std::memset(x, 0, (block.rows - block.count) * row_bytes);
    x += (block.rows - block.count) * row_bytes;
  }
}

void CpuBackend::Activate(const Block& block, uint32_t panel, const float* products) {
  const CpuExpert& expert = *block.expert;
  const size_t columns = block.up->columns;
  const size_t turns = expert.sizes().turns();
  const size_t begin = panel * columns / turns;
  const size_t end = begin + columns / turns;
  for (const MatmulShape::Chunk& chunk : expert.down().chunks()) {
    const size_t from = std::max(begin, chunk.begin);
    const size_t to = std::min(end, chunk.begin + chunk.inner);
    for (uint32_t r = 0; from < to && r < block.rows; ++r) {
      const float* const z = products + r * columns + turns * (from - begin);
      const float* const bias =
          expert.up_bias() == nullptr ? nullptr : expert.up_bias() + turns * from;
      uint8_t* const out =
          activations_.data() + block.activations +
          (block.rows * chunk.begin + r * chunk.inner + from - chunk.begin) * element_;
      const size_t blocks = (to - from) / kInterleave;
      if (dtype_ == DType::kBF16) {
        ops_.activate_bf16(expert.activation(), z, bias, blocks, reinterpret_cast<uint16_t*>(out));
      } else {
        ops_.activate_f32(expert.activation(), z, bias, blocks, reinterpret_cast<float*>(out));
      }
    }
  }
}

void CpuBackend::RunUp(const GroupedBatch& batch, Worker& worker, BatchPlan::Task task) {
  const Block& first = plan_.blocks()[task.block];
  const CpuExpert& expert = *first.expert;
  const MatmulShape& up = expert.up();
  absl::Status status;
  if (expert.compressed()) {
    worker.panel.Resize(up.PanelBytes(*first.up));
    status = worker.packer.PackUp(expert.sizes(), expert.stored(), up, *first.up, task.panel,
                                  worker.panel.data());
  }
  for (uint32_t b = task.block; b < task.block + task.count && status.ok(); ++b) {
    const Block& block = plan_.blocks()[b];
    worker.rows.Resize(block.rows * up.inner() * element_);
    worker.products.Resize(block.rows * block.up->columns * sizeof(float));
    Gather(batch, block, worker.rows.data());
    float* const products = worker.products.as<float>();
    status = expert.compressed()
                 ? worker.runner.RunPanel(up, *block.up, block.rows, worker.rows.data(),
                                          worker.panel.data(), products)
                 : worker.runner.Run(up, *block.up, task.panel, block.rows, worker.rows.data(),
                                     expert.up_weights(), products);
    if (status.ok()) {
      Activate(block, task.panel, products);
    }
  }
  Note(std::move(status));
}

void CpuBackend::RunDown(Worker& worker, BatchPlan::Task task) {
  const Block& first = plan_.blocks()[task.block];
  const CpuExpert& expert = *first.expert;
  const MatmulShape& down = expert.down();
  absl::Status status;
  if (expert.compressed()) {
    worker.panel.Resize(down.PanelBytes(*first.down));
    status =
        worker.packer.PackDown(expert.stored(), down, *first.down, task.panel, worker.panel.data());
  }
  for (uint32_t b = task.block; b < task.block + task.count && status.ok(); ++b) {
    const Block& block = plan_.blocks()[b];
    const uint8_t* const x = activations_.data() + block.activations;
    float* const out = outputs_.as<float>() + block.outputs +
                       size_t{block.rows} * task.panel * block.down->columns;
    status = expert.compressed() ? worker.runner.RunPanel(down, *block.down, block.rows, x,
                                                          worker.panel.data(), out)
                                 : worker.runner.Run(down, *block.down, task.panel, block.rows, x,
                                                     expert.down_weights(), out);
  }
  Note(std::move(status));
}

void CpuBackend::SumRow(const GroupedBatch& batch, size_t row) const {
  float* const sum = batch.partials + row * batch.d_model;
  std::fill_n(sum, batch.d_model, 0.0f);
  for (size_t a = batch.row_begin[row]; a < batch.row_begin[row + 1]; ++a) {
    const BatchPlan::RowPlace place = plan_.places()[a - first_assignment_];
    const Block& block = plan_.blocks()[place.block];
    const float weight = batch.apply == ApplyWeight::kOutput ? batch.weights[a] : 1.0f;
    const float* const bias = block.expert->down_bias();
    const size_t columns = block.down->columns;
    for (size_t begin = 0; begin < batch.d_model; begin += columns) {
      const float* const from =
          outputs_.as<float>() + block.outputs + block.rows * begin + place.row * columns;
      const size_t count = std::min(columns, batch.d_model - begin);
      if (bias == nullptr) {
        ops_.accumulate(weight, from, count, sum + begin);
      } else {
        ops_.accumulate_biased(weight, from, bias + begin, count, sum + begin);
      }
    }
  }
}

void CpuBackend::Note(absl::Status status) {
  if (status.ok()) {
    return;
  }
  absl::MutexLock lock(&status_mutex_);
  if (status_.ok()) {
    status_ = std::move(status);
  }
}

}  // namespace

bool CpuSupportsBF16() {
  static const bool supports = MatmulSupports(DType::kBF16);
  return supports;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options) {
  if (options.compute_dtype != DType::kF32 && options.compute_dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("compute_dtype ", NameOf(options.compute_dtype),
                                                   " must be F32 or BF16 on the CPU"));
  }
  if (options.threads < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads must be 0 (one per available core) or more; was ", options.threads));
  }
  if (options.compute_dtype == DType::kBF16 && !CpuSupportsBF16()) {
    return absl::UnimplementedError(
        "this CPU cannot multiply bf16 matrices (oneDNN needs AVX-512); compute in F32 instead");
  }
  const int threads = options.threads == 0 ? AvailableCores() : options.threads;
  return std::make_unique<CpuBackend>(options, threads);
}

}  // namespace expertmesh
