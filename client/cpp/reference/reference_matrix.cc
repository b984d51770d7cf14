#include "client/cpp/reference/reference_matrix.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace expertmesh::reference {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

template <typename T>
T Load(const uint8_t* data, size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

// A float of `exponent_bits` and `mantissa_bits` below its sign, as IEEE has it but for infinity
// and NaN.
float FromBits(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const uint32_t fraction = bits & ((1u << mantissa_bits) - 1);
  const uint32_t exponent = (bits >> mantissa_bits) & ((1u << exponent_bits) - 1);
  const bool negative = (bits >> (exponent_bits + mantissa_bits)) & 1u;
  const int power = exponent == 0 ? 1 - bias : static_cast<int>(exponent) - bias;
  const uint32_t significand = exponent == 0 ? fraction : fraction + (1u << mantissa_bits);
  const float magnitude = std::ldexp(static_cast<float>(significand), power - mantissa_bits);
  return negative ? -magnitude : magnitude;
}

float FromHalf(uint16_t bits) {
  if ((bits & 0x7c00u) != 0x7c00u) {
    return FromBits(bits, 5, 10);
  }
  const float special = (bits & 0x3ffu) != 0 ? kNaN : std::numeric_limits<float>::infinity();
  return (bits & 0x8000u) != 0 ? -special : special;
}

// E4M3 without infinity: all ones is not a number.
std::array<float, 256> EightBitValues() {
  std::array<float, 256> values{};
  for (uint32_t bits = 0; bits < values.size(); ++bits) {
    values[bits] = (bits & 0x7fu) == 0x7fu ? kNaN : FromBits(bits, 4, 3);
  }
  return values;
}

float ElementAt(Dtype dtype, const uint8_t* data, size_t index) {
  switch (dtype) {
    case Dtype::kF32:
      return Load<float>(data, index);
    case Dtype::kBF16: {
      const uint32_t bits = uint32_t{Load<uint16_t>(data, index)} << 16;
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    }
    case Dtype::kF16:
      return FromHalf(Load<uint16_t>(data, index));
    case Dtype::kF8E4M3: {
      static const std::array<float, 256> kValues = EightBitValues();
      return kValues[data[index]];
    }
    case Dtype::kF8E8M0:
      return data[index] == 255 ? kNaN : std::ldexp(1.0f, data[index] - 127);
    case Dtype::kF4: {
      // The even element is in the lower half of its byte.
      const uint8_t pair = data[index / 2];
      return FromBits(index % 2 == 1 ? pair >> 4 : pair & 0xfu, 2, 1);
    }
    default:
      return kNaN;
  }
}

float ScaleAt(const BlockScales& scales, size_t row, size_t col) {
  const size_t block_row = (row + scales.row_offset) / scales.block_rows;
  const size_t block_col = (col + scales.col_offset) / scales.block_cols;
  return ElementAt(scales.dtype, scales.data, block_row * scales.row_stride + block_col);
}

bool Known(Dtype dtype) {
  return IsActivationDtype(dtype) || dtype == Dtype::kF8E4M3 || dtype == Dtype::kF4;
}

}  // namespace

absl::StatusOr<FloatMatrix> DecodeReference(const MatrixView& view) {
  if (view.empty()) {
    return FloatMatrix();
  }
  if (!Known(view.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the reference cannot read weights of type ", NameOf(view.dtype)));
  }
  const BlockScales& scales = view.scales;
  if (!scales.empty() && !IsScaleDtype(scales.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the reference cannot read scales of type ", NameOf(scales.dtype)));
  }
  FloatMatrix matrix{view.rows, view.cols, std::vector<float>(view.rows * view.cols)};
  for (size_t r = 0; r < view.rows; ++r) {
    for (size_t c = 0; c < view.cols; ++c) {
      float value = ElementAt(view.dtype, view.data, r * view.row_stride + c * view.col_stride);
      if (!scales.empty()) {
        value *= ScaleAt(scales, r, c);
      }
      matrix.values[r * view.cols + c] = value;
    }
  }
  return matrix;
}

float ReferenceDot(const float* a, const float* b, size_t count) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += a[i + lane] * b[i + lane];
    }
  }
  double sum = 0.0;
  for (; i < count; ++i) {
    sum += static_cast<double>(a[i]) * b[i];
  }
  for (const float lane : lanes) {
    sum += lane;
  }
  return static_cast<float>(sum);
}

}  // namespace expertmesh::reference
