#include "common/experts/linear.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/experts/matmul.h"
#include "common/experts/packed_memory.h"
#include "common/experts/worker_team.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh::experts {
namespace {

// Work that is done before another thread would have woken up.
constexpr size_t kAloneCost = size_t{2} << 20;
// From here on a little padding costs less than a thread without work.
constexpr size_t kWideColumns = 16384;

}  // namespace

struct Linear::Packed {
  std::shared_ptr<const MatmulShape> shape;
  PackedMemory memory;
};

Linear::~Linear() = default;

absl::StatusOr<std::unique_ptr<const Linear>> Linear::Pack(Dtype compute_dtype,
                                                           absl::Span<const Part> parts) {
  if (parts.empty()) {
    return absl::InvalidArgumentError("a projection needs at least one matrix");
  }
  std::unique_ptr<Linear> linear(new Linear());
  linear->inputs_ = parts[0].weight.cols;
  bool biased = false;
  for (const Part& part : parts) {
    const MatrixView& weight = part.weight;
    RETURN_IF_ERROR(CheckDecodable("the weight of a projection", weight));
    if (weight.empty() || weight.cols != linear->inputs_) {
      return absl::InvalidArgumentError(
          absl::StrCat("matrices of a projection have ", weight.rows, " x ", weight.cols,
                       " elements; they must have ", linear->inputs_, " columns each"));
    }
    if (!part.bias.empty() && (part.bias.rows != 1 || part.bias.cols != weight.rows)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a bias of ", part.bias.cols, " elements does not fit ", weight.rows, " outputs"));
    }
    biased = biased || !part.bias.empty();
    linear->outputs_ += weight.rows;
  }
  linear->packed_ = std::make_unique<Packed>();
  Packed& packed = *linear->packed_;
  const size_t inner = matmul::RoundUp(linear->inputs_, kInnerStep);
  // The columns of wide matrices are divided over threads: a number of them that divides well.
  const size_t step = linear->outputs_ >= kWideColumns ? 16 * kColumnStep : kColumnStep;
  const size_t columns = matmul::RoundUp(linear->outputs_, step);
  packed.shape = std::make_shared<const MatmulShape>(compute_dtype, inner, columns);
  ASSIGN_OR_RETURN(packed.memory, PackedMemory::Allocate(packed.shape->bytes(), true));

  const size_t element = BytesOf(compute_dtype);
  // Padding is zero weights, which add nothing.
  ASSIGN_OR_RETURN(PackedMemory staging, PackedMemory::Allocate(inner * columns * element, false));
  size_t row = 0;
  for (const Part& part : parts) {
    DecodeTile(part.weight, 0, part.weight.rows, 0, part.weight.cols, compute_dtype,
               staging.data() + row * inner * element, inner);
    if (biased) {
      linear->bias_.resize(linear->outputs_);
      if (!part.bias.empty()) {
        DecodeRow(part.bias, 0, 0, part.weight.rows, linear->bias_.data() + row);
      }
    }
    row += part.weight.rows;
  }
  packed.shape->PackPanel(packed.shape->splits().front(), staging.data(), packed.memory.data());
  return linear;
}

struct LinearTeam::State {
  explicit State(int threads) : workers(threads), team(threads) {}

  struct Worker {
    MatmulRunner runner;
    AlignedBuffer products;
  };
  // One run of rows of a product.
  struct Block {
    size_t begin = 0;
    size_t count = 0;
  };

  // Rows of `x` as products take them, block after block.
  void Arrange(const Linear& linear, size_t rows, const float* x);
  void Compute(const Linear& linear, const MatmulShape::Split& split, size_t panel,
               const Block& block, Worker& worker, float* y);
  static void StoreStrip(const Linear& linear, const Block& block, size_t first, size_t columns,
                         const float* from, size_t stride, float* y);

  std::vector<Worker> workers;
  WorkerTeam team;
  TaskPhase phase;
  std::vector<Block> blocks;
  AlignedBuffer arranged;
};

void LinearTeam::State::Arrange(const Linear& linear, size_t rows, const float* x) {
  const MatmulShape& shape = *linear.packed_->shape;
  const size_t element = BytesOf(shape.dtype());
  blocks.clear();
  for (size_t begin = 0; begin < rows; begin += kMaxRows) {
    blocks.push_back({begin, std::min(rows - begin, kMaxRows)});
  }
  arranged.Resize(rows * shape.x_row_bytes());
  for (size_t row = 0; row < rows; ++row) {
    uint8_t* const target = arranged.data() + row * shape.x_row_bytes();
    ConvertElements(Dtype::kF32, x + row * linear.inputs_, shape.dtype(), target, linear.inputs_);
    std::memset(target + linear.inputs_ * element, 0, (shape.inner() - linear.inputs_) * element);
  }
}

void LinearTeam::State::Compute(const Linear& linear, const MatmulShape::Split& split, size_t panel,
                                const Block& block, Worker& worker, float* y) {
  const MatmulShape& shape = *linear.packed_->shape;
  worker.products.Resize(block.count * split.columns * sizeof(float));
  float* const products = worker.products.as<float>();
  worker.runner.Run(shape, split, block.count, arranged.data() + block.begin * shape.x_row_bytes(),
                    linear.packed_->memory.data() + panel * shape.PanelBytes(split), products);
  const size_t first = panel * split.columns;
  const size_t last = std::min(first + split.columns, linear.outputs_);
  const size_t strip = shape.StripColumnsOf(split);
  const float* from = products;
  for (size_t begin = first; begin < last; begin += strip, from += block.count * strip) {
    StoreStrip(linear, block, begin, std::min(strip, last - begin), from, strip, y);
  }
}

// `columns` columns of the product from `first` on; `from` has `stride` in a row.
void LinearTeam::State::StoreStrip(const Linear& linear, const Block& block, size_t first,
                                   size_t columns, const float* from, size_t stride, float* y) {
  for (size_t row = 0; row < block.count; ++row, from += stride) {
    float* const to = y + (block.begin + row) * linear.outputs_ + first;
    if (linear.bias_.empty()) {
      std::copy(from, from + columns, to);
      continue;
    }
    for (size_t column = 0; column < columns; ++column) {
      to[column] = from[column] + linear.bias_[first + column];
    }
  }
}

LinearTeam::LinearTeam(int threads)
    : state_(std::make_unique<State>(threads > 0 ? threads : AvailableCores())) {}

LinearTeam::~LinearTeam() = default;

void LinearTeam::Multiply(const Linear& linear, size_t rows, const float* x, float* y) {
  State& state = *state_;
  const MatmulShape& shape = *linear.packed_->shape;
  const size_t cost = rows * shape.inner() * shape.columns();
  const bool alone = cost < kAloneCost || state.team.threads() == 1;
  const MatmulShape::Split* split = &shape.splits().front();
  if (!alone) {
    const size_t wanted = 2 * static_cast<size_t>(state.team.threads());
    for (const MatmulShape::Split& candidate : shape.splits()) {
      split = &candidate;
      if (candidate.panels >= wanted) {
        break;
      }
    }
  }
  state.Arrange(linear, rows, x);
  state.phase.Reset(static_cast<uint32_t>(state.blocks.size() * split->panels));
  const auto job = [&](int index) {
    State::Worker& worker = state.workers[static_cast<size_t>(index)];
    state.phase.RunTasks([&](uint32_t task) {
      const State::Block& block = state.blocks[task / split->panels];
      state.Compute(linear, *split, task % split->panels, block, worker, y);
    });
  };
  state.team.Run(job, alone);
}

void LinearTeam::ForEach(size_t tasks, size_t cost, absl::FunctionRef<void(size_t task)> run) {
  State& state = *state_;
  state.phase.Reset(static_cast<uint32_t>(tasks));
  const auto job = [&](int) { state.phase.RunTasks([&](uint32_t task) { run(task); }); };
  state.team.Run(job, cost < kAloneCost || tasks < 2);
}

}  // namespace expertmesh::experts
