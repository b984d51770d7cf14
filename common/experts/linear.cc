#include "common/experts/linear.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/experts/matmul.h"
#include "common/experts/packed_memory.h"
#include "common/experts/worker_team.h"
#include "common/matmul/single_threaded_openmp.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh {
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

absl::StatusOr<std::unique_ptr<const Linear>> Linear::Pack(DType compute_dtype,
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
  const size_t inner = RoundUp(linear->inputs_, kInnerStep);
  // The columns of wide matrices are divided over threads: a number of them that divides well.
  const size_t step = linear->outputs_ >= kWideColumns ? 16 * kColumnStep : kColumnStep;
  const size_t columns = RoundUp(linear->outputs_, step);
  ASSIGN_OR_RETURN(packed.shape, MatmulShape::Create(compute_dtype, inner, columns));
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
  RETURN_IF_ERROR(packed.shape->PackPanel(packed.shape->splits().front(), staging.data(),
                                          packed.memory.data()));
  return linear;
}

struct LinearTeam::State {
  explicit State(int threads) : workers(threads), team(threads, UseSingleThreadedOpenMP) {}

  struct Worker {
    MatmulRunner runner;
    AlignedBuffer products;
  };
  // One run of rows of a product.
  struct Block {
    size_t begin = 0;
    size_t count = 0;
    size_t rows = 0;  // With padding.
    size_t offset = 0;
  };

  // Rows of `x` as products take them, chunk after chunk, block after block.
  void Arrange(const Linear& linear, const MatmulShape::Split& split, size_t rows, const float* x);
  absl::Status Compute(const Linear& linear, const MatmulShape::Split& split, size_t panel,
                       const Block& block, Worker& worker, float* y);
  static void TakeStrip(const Linear& linear, const Block& block, size_t first, size_t columns,
                        const float* from, size_t stride, float* y);

  std::vector<Worker> workers;
  WorkerTeam team;
  TaskPhase phase;
  std::vector<Block> blocks;
  AlignedBuffer arranged;
  absl::Mutex mutex;
  absl::Status status ABSL_GUARDED_BY(mutex);
};

void LinearTeam::State::Arrange(const Linear& linear, const MatmulShape::Split& split, size_t rows,
                                const float* x) {
  const MatmulShape& shape = *linear.packed_->shape;
  const size_t element = BytesOf(shape.dtype());
  blocks.clear();
  size_t offset = 0;
  for (size_t begin = 0; begin < rows;) {
    Block block;
    block.begin = begin;
    block.count = std::min(rows - begin, shape.max_rows());
    block.rows = shape.PaddedRows(split, block.count);
    block.offset = offset;
    offset += RoundUp(shape.XBytes(block.rows), AlignedBuffer::kAlignment);
    begin += block.count;
    blocks.push_back(block);
  }
  arranged.Resize(offset);
  for (const Block& block : blocks) {
    for (const MatmulShape::Chunk& chunk : shape.chunks()) {
      const size_t filled =
          chunk.begin < linear.inputs_ ? std::min(chunk.inner, linear.inputs_ - chunk.begin) : 0;
      for (size_t row = 0; row < block.rows; ++row) {
        uint8_t* const target =
            arranged.data() + block.offset + shape.XOffset(chunk, block.rows, row);
        if (row >= block.count) {
          std::memset(target, 0, chunk.inner * element);
          continue;
        }
        ConvertElements(DType::kF32, x + (block.begin + row) * linear.inputs_ + chunk.begin,
                        shape.dtype(), target, filled);
        std::memset(target + filled * element, 0, (chunk.inner - filled) * element);
      }
    }
  }
}

absl::Status LinearTeam::State::Compute(const Linear& linear, const MatmulShape::Split& split,
                                        size_t panel, const Block& block, Worker& worker,
                                        float* y) {
  worker.products.Resize(block.rows * split.columns * sizeof(float));
  float* const products = worker.products.as<float>();
  RETURN_IF_ERROR(worker.runner.Run(*linear.packed_->shape, split, panel, block.rows,
                                    arranged.data() + block.offset, linear.packed_->memory.data(),
                                    products));
  const size_t first = panel * split.columns;
  if (first >= linear.outputs_) {
    return absl::OkStatus();
  }
  const size_t last = std::min(first + split.columns, linear.outputs_);
  const size_t strip = linear.packed_->shape->StripColumnsOf(split);
  const float* from = products;
  for (size_t begin = first; begin < last; begin += strip, from += block.rows * strip) {
    TakeStrip(linear, block, begin, std::min(strip, last - begin), from, strip, y);
  }
  return absl::OkStatus();
}

// `columns` columns of the product from `first` on; `from` has `stride` in a row.
void LinearTeam::State::TakeStrip(const Linear& linear, const Block& block, size_t first,
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

absl::Status LinearTeam::Multiply(const Linear& linear, size_t rows, const float* x, float* y) {
  if (rows == 0) {
    return absl::OkStatus();
  }
  const SingleThreadedOpenMP single;
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
  state.Arrange(linear, *split, rows, x);
  state.phase.Reset(static_cast<uint32_t>(state.blocks.size() * split->panels));
  const auto job = [&](int index) {
    State::Worker& worker = state.workers[static_cast<size_t>(index)];
    state.phase.Work([&](uint32_t task) {
      const State::Block& block = state.blocks[task / split->panels];
      const absl::Status done =
          state.Compute(linear, *split, task % split->panels, block, worker, y);
      if (!done.ok()) {
        absl::MutexLock lock(&state.mutex);
        state.status.Update(done);
      }
    });
  };
  state.team.Run(job, alone);
  absl::MutexLock lock(&state.mutex);
  return std::exchange(state.status, absl::OkStatus());
}

void LinearTeam::ForEach(size_t tasks, size_t cost, absl::FunctionRef<void(size_t task)> run) {
  State& state = *state_;
  state.phase.Reset(static_cast<uint32_t>(tasks));
  const auto job = [&](int) { state.phase.Work([&](uint32_t task) { run(task); }); };
  state.team.Run(job, cost < kAloneCost || tasks < 2);
}

}  // namespace expertmesh
