#include "common/experts/cpu_expert.h"

#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/decode_matrix.h"
#include "common/tensor/matrix_slice.h"

namespace expertmesh::experts {
namespace {

constexpr MatrixView ExpertWeights::*kMatrices[] = {&ExpertWeights::gate, &ExpertWeights::up,
                                                    &ExpertWeights::down};

size_t MatrixBytes(const ExpertWeights& weights, const MatmulShape& up, const MatmulShape& down,
                   WeightStorage storage) {
  if (storage == WeightStorage::kExpanded) {
    return up.bytes() + down.bytes();
  }
  size_t bytes = 0;
  for (const auto matrix : kMatrices) {
    bytes += matmul::RoundUp(StoredBytes(weights.*matrix), AlignedBuffer::kAlignment);
  }
  return bytes;
}

size_t BiasFloats(const ExpertSizes& sizes, const ExpertWeights& weights) {
  return (weights.up_bias.empty() ? 0 : sizes.up_columns()) +
         (weights.down_bias.empty() ? 0 : sizes.d_model);
}

// Gate and up values in the order of the product's columns; padding is 0.
void Interleave(const ExpertSizes& sizes, const ExpertWeights& weights, size_t columns,
                float* target) {
  for (size_t column = 0; column < columns; column += kInterleave) {
    const bool is_gate = sizes.gated && column / kInterleave % 2 == 0;
    const MatrixView& bias = is_gate ? weights.gate_bias : weights.up_bias;
    const size_t begin = column / (sizes.turns() * kInterleave) * kInterleave;
    const size_t filled =
        begin < sizes.intermediate ? std::min(kInterleave, sizes.intermediate - begin) : 0;
    std::fill_n(target + column, kInterleave, 0.0f);
    if (filled > 0) {
      DecodeRow(bias, 0, begin, filled, target + column);
    }
  }
}

}  // namespace

size_t CpuExpert::PackedBytes(const ExpertSizes& sizes, const ExpertWeights& weights,
                              const MatmulShape& up, const MatmulShape& down,
                              WeightStorage storage) {
  return PackedMemory::HeldBytes(MatrixBytes(weights, up, down, storage) +
                                 BiasFloats(sizes, weights) * sizeof(float));
}

absl::StatusOr<std::shared_ptr<const CpuExpert>> CpuExpert::Pack(
    const ExpertOptions& options, const ExpertSizes& sizes, const ExpertWeights& weights,
    std::shared_ptr<const MatmulShape> up, std::shared_ptr<const MatmulShape> down,
    WeightStorage storage, bool huge_pages) {
  std::shared_ptr<CpuExpert> expert(new CpuExpert());
  const size_t matrices = MatrixBytes(weights, *up, *down, storage);
  const size_t biases = BiasFloats(sizes, weights) * sizeof(float);
  ASSIGN_OR_RETURN(expert->memory_, PackedMemory::Allocate(matrices + biases, huge_pages));
  expert->sizes_ = sizes;
  expert->activation_ = {options.activation, options.gated, options.swiglu_limit,
                         options.swiglu_alpha};
  expert->up_ = std::move(up);
  expert->down_ = std::move(down);
  expert->compressed_ = storage == WeightStorage::kCompressed;
  if (expert->compressed_) {
    expert->CopyMatrices(weights);
  } else {
    expert->PackMatrices(weights);
  }
  expert->StoreBiases(weights, reinterpret_cast<float*>(expert->memory_.data() + matrices));
  return expert;
}

// Panel by panel: what lies between stays in the cache, and a thread keeps a few MB for it at most.
void CpuExpert::PackMatrices(const ExpertWeights& weights) {
  thread_local WeightPacker packer;
  uint8_t* packed = memory_.data();
  const MatmulShape::Split& up = up_->splits().back();
  for (size_t panel = 0; panel < up.panels; ++panel, packed += up_->PanelBytes(up)) {
    packer.PackUp(sizes_, weights, *up_, up, panel, packed);
  }
  const MatmulShape::Split& down = down_->splits().back();
  for (size_t panel = 0; panel < down.panels; ++panel, packed += down_->PanelBytes(down)) {
    packer.PackDown(weights, *down_, down, panel, packed);
  }
}

void CpuExpert::CopyMatrices(const ExpertWeights& weights) {
  uint8_t* target = memory_.data();
  for (const auto matrix : kMatrices) {
    stored_.*matrix = CopyStored(weights.*matrix, target);
    target += matmul::RoundUp(StoredBytes(weights.*matrix), AlignedBuffer::kAlignment);
  }
}

void CpuExpert::StoreBiases(const ExpertWeights& weights, float* target) {
  if (!weights.up_bias.empty()) {
    Interleave(sizes_, weights, up_->columns(), target);
    up_bias_ = target;
    target += up_->columns();
  }
  if (!weights.down_bias.empty()) {
    DecodeRow(weights.down_bias, 0, 0, sizes_.d_model, target);
    down_bias_ = target;
  }
}

}  // namespace expertmesh::experts
