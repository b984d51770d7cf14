#include "common/experts/cuda/expert_layout.h"

#include <algorithm>
#include <cstring>

#include "common/tensor/decode_matrix.h"

namespace expertmesh::experts {
namespace {

// Packed rows that lie side by side of a gate, and then of its up.
size_t HalfOf(Dtype dtype) { return dtype == Dtype::kBF16 ? 8 : 32; }

// Which row of a group before it is arranged (gate, then up, when they take `turns`) packed row
// `row` of it is.
size_t SourceRow(Dtype dtype, bool turns, size_t row) {
  if (!turns) {
    return row;
  }
  const size_t half = HalfOf(dtype);
  const size_t within = row / (2 * half) * half + row % half;
  return row / half % 2 == 0 ? within : kPackedStep / 2 + within;
}

// 16 rows, each a pointer to its bf16 values, to fragments of tensor-core instructions. Of each 32
// elements, lane 4 g + t has of rows g and g + 8 those from 8 t on: the first four in the first
// instruction, the others in the second.
void ArrangeFragments(const uint16_t* const (&rows)[16], size_t inner, uint8_t* target) {
  for (size_t step = 0; step < inner; step += 32) {
    for (size_t instruction = 0; instruction < 2; ++instruction) {
      for (size_t lane = 0; lane < 32; ++lane) {
        const size_t g = lane / 4;
        const size_t at = step + lane % 4 * 8 + instruction * 4;
        std::memcpy(target, rows[g] + at, 4);
        std::memcpy(target + 4, rows[g + 8] + at, 4);
        std::memcpy(target + 8, rows[g] + at + 2, 4);
        std::memcpy(target + 12, rows[g + 8] + at + 2, 4);
        target += 16;
      }
    }
  }
}

std::vector<float> DecodeBias(const MatrixView& view, size_t size) {
  std::vector<float> values(size, 0.0f);
  if (!view.empty()) {
    DecodeRow(view, 0, 0, view.cols, values.data());
  }
  return values;
}

}  // namespace

// Rows [row, row + rows) of `view`, zero beyond its end.
void GroupPacker::Decode(const MatrixView& view, Dtype dtype, size_t row, size_t rows, size_t inner,
                         uint8_t* target) {
  const size_t element = BytesOf(dtype);
  const size_t filled = row < view.rows ? std::min(rows, view.rows - row) : 0;
  if (filled > 0) {
    DecodeTile(view, row, filled, 0, view.cols, dtype, target, inner);
  }
  for (size_t r = 0; r < rows; ++r) {
    const size_t columns = r < filled ? view.cols : 0;
    std::memset(target + (r * inner + columns) * element, 0, (inner - columns) * element);
  }
}

void GroupPacker::Arrange(const PackedShape& shape, bool turns, size_t inner,
                          uint8_t* target) const {
  const size_t row_bytes = inner * BytesOf(shape.dtype);
  const auto source = [&](size_t row) {
    return rows_.data() + SourceRow(shape.dtype, turns, row) * row_bytes;
  };
  if (shape.arrangement == Arrangement::kInRows) {
    for (size_t row = 0; row < kPackedStep; ++row) {
      std::memcpy(target + row * row_bytes, source(row), row_bytes);
    }
  } else if (shape.dtype == Dtype::kBF16) {
    for (size_t first = 0; first < kPackedStep; first += 16) {
      const uint16_t* rows[16];
      for (size_t r = 0; r < 16; ++r) {
        rows[r] = reinterpret_cast<const uint16_t*>(source(first + r));
      }
      ArrangeFragments(rows, inner, target + first * row_bytes);
    }
  } else {
    constexpr size_t kTogether = 4 * sizeof(float);
    for (size_t row = 0; row < kPackedStep; ++row) {
      for (size_t piece = 0; piece < row_bytes / kTogether; ++piece) {
        std::memcpy(target + (piece * kPackedStep + row) * kTogether,
                    source(row) + piece * kTogether, kTogether);
      }
    }
  }
}

void GroupPacker::PackUp(const PackedShape& shape, const ExpertWeights& weights, size_t group,
                         uint8_t* target) {
  const size_t inner = shape.up_inner();
  rows_.Resize(shape.up_group_bytes());
  if (shape.gated) {
    const size_t half = kPackedStep / 2;
    Decode(weights.gate, shape.dtype, group * half, half, inner, rows_.data());
    Decode(weights.up, shape.dtype, group * half, half, inner,
           rows_.data() + shape.up_group_bytes() / 2);
  } else {
    Decode(weights.up, shape.dtype, group * kPackedStep, kPackedStep, inner, rows_.data());
  }
  Arrange(shape, shape.gated, inner, target);
}

void GroupPacker::PackDown(const PackedShape& shape, const ExpertWeights& weights, size_t group,
                           uint8_t* target) {
  rows_.Resize(shape.down_group_bytes());
  Decode(weights.down, shape.dtype, group * kPackedStep, kPackedStep, shape.down_inner(),
         rows_.data());
  Arrange(shape, false, shape.down_inner(), target);
}

std::vector<float> PackedUpBias(const PackedShape& shape, const ExpertWeights& weights) {
  const size_t width = PackedShape::Padded(shape.intermediate);
  std::vector<float> up = DecodeBias(weights.up_bias, width);
  if (!shape.gated) {
    return up;
  }
  const std::vector<float> gate = DecodeBias(weights.gate_bias, width);
  std::vector<float> packed(shape.up_rows());
  for (size_t row = 0; row < packed.size(); ++row) {
    const size_t in_group = SourceRow(shape.dtype, true, row % kPackedStep);
    const size_t half = kPackedStep / 2;
    const size_t column = row / kPackedStep * half + in_group % half;
    packed[row] = in_group < half ? gate[column] : up[column];
  }
  return packed;
}

std::vector<float> PackedDownBias(const PackedShape& shape, const ExpertWeights& weights) {
  return DecodeBias(weights.down_bias, shape.down_rows());
}

}  // namespace expertmesh::experts
