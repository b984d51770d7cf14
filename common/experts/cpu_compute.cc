#include "common/experts/cpu_compute.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/experts/cpu_expert.h"

namespace expertmesh::experts {
namespace {

// Rows summed by one task.
constexpr uint32_t kSumRows = 8;
// Batches with less work than this are done before a worker would have woken up.
constexpr uint64_t kAloneCost = uint64_t{2} << 20;

}  // namespace

CpuCompute::CpuCompute(Dtype dtype, int threads, size_t max_scratch_bytes)
    : dtype_(dtype),
      element_(BytesOf(dtype)),
      max_scratch_bytes_(max_scratch_bytes),
      ops_(GetElementwiseOps()),
      workers_(static_cast<size_t>(threads)),
      team_(threads) {}

absl::Status CpuCompute::CheckExperts(const GroupedBatch& batch,
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
                 expert->down().x_row_bytes() + expert->down().columns() * sizeof(float));
  }
  return absl::OkStatus();
}

absl::Status CpuCompute::Run(const GroupedBatch& batch) {
  groups_.Build(batch.experts);
  size_t bytes_per_assignment = 1;
  RETURN_IF_ERROR(CheckExperts(batch, &bytes_per_assignment));
  const size_t most = std::max<size_t>(1, max_scratch_bytes_ / bytes_per_assignment);
  if (batch.experts.size() <= most) {
    ComputeRows(batch, 0, batch.rows);
    return absl::OkStatus();
  }
  for (size_t begin = 0; begin < batch.rows;) {
    size_t end = begin + 1;
    while (end < batch.rows && batch.row_begin[end + 1] - batch.row_begin[begin] <= most) {
      ++end;
    }
    const size_t first = batch.row_begin[begin];
    groups_.Build(batch.experts.subspan(first, batch.row_begin[end] - first));
    ComputeRows(batch, begin, end);
    begin = end;
  }
  return absl::OkStatus();
}

void CpuCompute::FillRowOf(const GroupedBatch& batch, size_t begin, size_t end) {
  first_assignment_ = batch.row_begin[begin];
  row_of_.resize(batch.row_begin[end] - first_assignment_);
  for (size_t row = begin; row < end; ++row) {
    const uint32_t from =
        batch.hidden_row_of.empty() ? static_cast<uint32_t>(row) : batch.hidden_row_of[row];
    for (size_t a = batch.row_begin[row]; a < batch.row_begin[row + 1]; ++a) {
      row_of_[a - first_assignment_] = from;
    }
  }
}

// `groups_` holds the assignments of rows [begin, end).
void CpuCompute::ComputeRows(const GroupedBatch& batch, size_t begin, size_t end) {
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
    up_phase_.RunTasks([&](uint32_t task) { RunUp(batch, worker, plan_.up_tasks()[task]); });
    down_phase_.RunTasks([&](uint32_t task) { RunDown(worker, plan_.down_tasks()[task]); });
    sum_phase_.RunTasks([&](uint32_t task) {
      const size_t last = std::min<size_t>(end, begin + (size_t{task} + 1) * kSumRows);
      for (size_t row = begin + size_t{task} * kSumRows; row < last; ++row) {
        SumRow(batch, row);
      }
    });
  };
  team_.Run(job, /*alone=*/plan_.cost() < kAloneCost);
}

void CpuCompute::Gather(const GroupedBatch& batch, const Block& block, uint8_t* x) const {
  const auto* hidden = static_cast<const uint8_t*>(batch.hidden_states);
  const MatmulShape& up = block.expert->up();
  const size_t filled = batch.d_model * element_;
  for (uint32_t r = 0; r < block.count; ++r) {
    uint8_t* const row = x + r * up.x_row_bytes();
    const uint32_t a = groups_.order()[block.begin + r];
    const uint8_t* const from = hidden + row_of_[a] * filled;
    if (batch.apply == ApplyWeight::kOutput) {
      std::memcpy(row, from, filled);
    } else if (dtype_ == Dtype::kBF16) {
      ops_.scale_bf16(batch.weights[first_assignment_ + a], reinterpret_cast<const uint16_t*>(from),
                      batch.d_model, reinterpret_cast<uint16_t*>(row));
    } else {
      ops_.scale_f32(batch.weights[first_assignment_ + a], reinterpret_cast<const float*>(from),
                     batch.d_model, reinterpret_cast<float*>(row));
    }
    std::memset(row + filled, 0, up.inner() * element_ - filled);
  }
}

void CpuCompute::Activate(const Block& block, uint32_t panel, const float* products) {
  const MatmulShape& up = block.expert->up();
  const size_t strip = up.StripColumnsOf(*block.up);
  const size_t first = panel * block.up->columns;
  for (size_t column = 0; column < block.up->columns; column += strip) {
    ActivateStrip(block, first + column, strip, products + column * block.count);
  }
}

// `columns` columns of up's product from `first` on.
void CpuCompute::ActivateStrip(const Block& block, size_t first, size_t columns,
                               const float* products) {
  const CpuExpert& expert = *block.expert;
  const MatmulShape& down = expert.down();
  const size_t turns = expert.sizes().turns();
  // Padding of up's columns may be wider than down's input.
  const size_t begin = first / turns;
  const size_t end = std::min(begin + columns / turns, down.inner());
  for (uint32_t r = 0; begin < end && r < block.count; ++r) {
    const float* const z = products + r * columns;
    const float* const bias =
        expert.up_bias() == nullptr ? nullptr : expert.up_bias() + turns * begin;
    uint8_t* const out =
        activations_.data() + block.activations + r * down.x_row_bytes() + begin * element_;
    const size_t blocks = (end - begin) / kInterleave;
    if (dtype_ == Dtype::kBF16) {
      ops_.activate_bf16(expert.activation(), z, bias, blocks, reinterpret_cast<uint16_t*>(out));
    } else {
      ops_.activate_f32(expert.activation(), z, bias, blocks, reinterpret_cast<float*>(out));
    }
  }
}

void CpuCompute::RunUp(const GroupedBatch& batch, Worker& worker, ComputePlan::Task task) {
  const Block& first = plan_.blocks()[task.block];
  const CpuExpert& expert = *first.expert;
  const MatmulShape& up = expert.up();
  const uint8_t* panel = expert.up_weights() + task.panel * up.PanelBytes(*first.up);
  if (expert.compressed()) {
    worker.panel.Resize(up.PanelBytes(*first.up));
    worker.packer.PackUp(expert.sizes(), expert.stored(), up, *first.up, task.panel,
                         worker.panel.data());
    panel = worker.panel.data();
  }
  for (uint32_t b = task.block; b < task.block + task.count; ++b) {
    const Block& block = plan_.blocks()[b];
    worker.rows.Resize(block.count * up.x_row_bytes());
    worker.products.Resize(block.count * block.up->columns * sizeof(float));
    Gather(batch, block, worker.rows.data());
    float* const products = worker.products.as<float>();
    worker.runner.Run(up, *block.up, block.count, worker.rows.data(), panel, products);
    Activate(block, task.panel, products);
  }
}

void CpuCompute::RunDown(Worker& worker, ComputePlan::Task task) {
  const Block& first = plan_.blocks()[task.block];
  const CpuExpert& expert = *first.expert;
  const MatmulShape& down = expert.down();
  const uint8_t* panel = expert.down_weights() + task.panel * down.PanelBytes(*first.down);
  if (expert.compressed()) {
    worker.panel.Resize(down.PanelBytes(*first.down));
    worker.packer.PackDown(expert.stored(), down, *first.down, task.panel, worker.panel.data());
    panel = worker.panel.data();
  }
  for (uint32_t b = task.block; b < task.block + task.count; ++b) {
    const Block& block = plan_.blocks()[b];
    float* const out = outputs_.as<float>() + block.outputs +
                       size_t{block.count} * task.panel * block.down->columns;
    worker.runner.Run(down, *block.down, block.count, activations_.data() + block.activations,
                      panel, out);
  }
}

void CpuCompute::SumRow(const GroupedBatch& batch, size_t row) const {
  float* const sum = batch.partials + row * batch.d_model;
  std::fill_n(sum, batch.d_model, 0.0f);
  for (size_t a = batch.row_begin[row]; a < batch.row_begin[row + 1]; ++a) {
    const ComputePlan::RowPlace place = plan_.places()[a - first_assignment_];
    const Block& block = plan_.blocks()[place.block];
    const float weight = batch.apply == ApplyWeight::kOutput ? batch.weights[a] : 1.0f;
    const float* const bias = block.expert->down_bias();
    const size_t columns = block.expert->down().StripColumnsOf(*block.down);
    for (size_t begin = 0; begin < batch.d_model; begin += columns) {
      const float* const from =
          outputs_.as<float>() + block.outputs + block.count * begin + place.row * columns;
      const size_t count = std::min(columns, batch.d_model - begin);
      if (bias == nullptr) {
        ops_.accumulate(weight, from, count, sum + begin);
      } else {
        ops_.accumulate_biased(weight, from, bias + begin, count, sum + begin);
      }
    }
  }
}

}  // namespace expertmesh::experts
