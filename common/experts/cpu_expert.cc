#include "common/experts/cpu_expert.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/decode_matrix.h"
#include "common/tensor/matrix_slice.h"

namespace expertmesh::experts {
namespace {

absl::Status CheckShape(absl::string_view name, const MatrixView& view, size_t rows, size_t cols) {
  if (view.rows != rows || view.cols != cols) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert weight '", name, "' is [", view.rows, ", ", view.cols,
                     "] but d_model and intermediate_size call for [", rows, ", ", cols, "]"));
  }
  return CheckDecodable(absl::StrCat("expert weight '", name, "'"), view);
}

// A weight that options say is there or not.
absl::Status CheckOptional(absl::string_view name, const MatrixView& view, bool wanted, size_t rows,
                           size_t cols) {
  if (wanted) {
    return CheckShape(name, view, rows, cols);
  }
  if (!view.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert weight '", name, "' is given, but the expert's options have none"));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const ExpertOptions& options) {
  if (options.d_model == 0 || options.intermediate_size == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("d_model (", options.d_model, ") and intermediate_size (",
                     options.intermediate_size, ") must be positive"));
  }
  if (options.activation != Activation::kClampedSwiglu) {
    return absl::OkStatus();
  }
  if (!options.gated) {
    return absl::InvalidArgumentError("the activation clamped SwiGLU needs a gated expert");
  }
  if (!(options.swiglu_limit > 0.0f) || !std::isfinite(options.swiglu_alpha)) {
    return absl::InvalidArgumentError(absl::StrCat("swiglu_limit (", options.swiglu_limit,
                                                   ") must be positive and swiglu_alpha (",
                                                   options.swiglu_alpha, ") finite"));
  }
  return absl::OkStatus();
}

absl::Status CheckSlice(const ExpertOptions& options, const ExpertWeights& weights,
                        IntermediateSlice slice) {
  if (slice.count == 0 || slice.index >= slice.count) {
    return absl::InvalidArgumentError(absl::StrCat("slice ", slice.index, " of ", slice.count,
                                                   " does not exist; slices count from 0"));
  }
  const size_t intermediate = options.intermediate_size;
  if (intermediate % slice.count != 0) {
    return absl::InvalidArgumentError(absl::StrCat("intermediate_size ", intermediate,
                                                   " does not divide into ", slice.count,
                                                   " slices; choose a divisor"));
  }
  if (weights.down.dtype == Dtype::kF4 && slice.index * (intermediate / slice.count) % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("slices of width ", intermediate / slice.count,
                     " would cut bytes of the F4 expert weight 'down'; choose fewer slices"));
  }
  return absl::OkStatus();
}

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

absl::StatusOr<ExpertSizes> CheckExpert(const ExpertOptions& options, const ExpertWeights& weights,
                                        IntermediateSlice slice) {
  RETURN_IF_ERROR(CheckOptions(options));
  const size_t d_model = options.d_model;
  const size_t intermediate = options.intermediate_size;
  RETURN_IF_ERROR(CheckOptional("gate", weights.gate, options.gated, intermediate, d_model));
  RETURN_IF_ERROR(CheckShape("up", weights.up, intermediate, d_model));
  RETURN_IF_ERROR(CheckShape("down", weights.down, d_model, intermediate));
  RETURN_IF_ERROR(CheckOptional("gate_bias", weights.gate_bias, options.bias && options.gated, 1,
                                intermediate));
  RETURN_IF_ERROR(CheckOptional("up_bias", weights.up_bias, options.bias, 1, intermediate));
  RETURN_IF_ERROR(CheckOptional("down_bias", weights.down_bias, options.bias, 1, d_model));
  RETURN_IF_ERROR(CheckSlice(options, weights, slice));
  return ExpertSizes{d_model, intermediate / slice.count, options.gated};
}

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
