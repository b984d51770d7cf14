#include "common/tensor/decode_matrix.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace expertmesh {
namespace {

// 1 sign, 4 exponent (bias 7) and 3 mantissa bits; no infinity, NaN is all ones (OCP FP8 E4M3).
float FromF8E4M3(uint8_t bits) {
  const uint32_t exponent = (bits >> 3) & 15u;
  const uint32_t mantissa = bits & 7u;
  if (exponent == 15 && mantissa == 7) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float magnitude =
      exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                    : std::ldexp(static_cast<float>(8 + mantissa), static_cast<int>(exponent) - 10);
  return (bits & 0x80u) != 0 ? -magnitude : magnitude;
}

// 1 sign, 2 exponent and 1 mantissa bits (OCP MX FP4 E2M1).
constexpr std::array<float, 16> kF4 = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                       -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

const std::array<float, 256>& F8Table() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> values{};
    for (size_t bits = 0; bits < values.size(); ++bits) {
      values[bits] = FromF8E4M3(static_cast<uint8_t>(bits));
    }
    return values;
  }();
  return table;
}

// 2^(byte - 127); 255 is NaN. The smallest, 2^-127, is a float32 subnormal.
float FromE8M0(uint8_t byte) {
  if (byte == 255) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  return byte == 0 ? std::bit_cast<float>(0x00400000u) : std::bit_cast<float>(uint32_t{byte} << 23);
}

float ScaleAt(const BlockScales& scales, size_t row, size_t block_col) {
  const size_t index =
      (row + scales.row_offset) / scales.block_rows * scales.row_stride + block_col;
  if (scales.dtype == DType::kF8E8M0) {
    return FromE8M0(scales.data[index]);
  }
  float scale;
  std::memcpy(&scale, scales.data + index * sizeof(float), sizeof(float));
  return scale;
}

void DecodeElements(const MatrixView& view, size_t row, size_t begin, size_t count, float* target) {
  const size_t first = row * view.row_stride + begin * view.col_stride;
  if (view.dtype == DType::kF4) {
    for (size_t i = 0; i < count; ++i) {
      const uint8_t byte = view.data[(first + i) / 2];
      target[i] = kF4[(first + i) % 2 == 0 ? byte & 15u : byte >> 4];
    }
  } else if (view.dtype == DType::kF8E4M3) {
    const std::array<float, 256>& table = F8Table();
    for (size_t i = 0; i < count; ++i) {
      target[i] = table[view.data[first + i * view.col_stride]];
    }
  } else if (view.col_stride == 1) {
    ConvertElements(view.dtype, view.data + first * BytesOf(view.dtype), DType::kF32, target,
                    count);
  } else {
    const size_t bytes = BytesOf(view.dtype);
    for (size_t i = 0; i < count; ++i) {
      ConvertElements(view.dtype, view.data + (first + i * view.col_stride) * bytes, DType::kF32,
                      target + i, 1);
    }
  }
}

}  // namespace

absl::Status CheckDecodable(absl::string_view what, const MatrixView& view) {
  const auto wrong = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(what, " ", why));
  };
  if (view.data == nullptr && !view.empty()) {
    return wrong("has no data");
  }
  if (view.dtype == DType::kF4 && (view.col_stride != 1 || view.row_stride % 2 != 0)) {
    return wrong("of type F4 must have rows of whole bytes");
  }
  if (!IsActivationDType(view.dtype) && view.dtype != DType::kF8E4M3 && view.dtype != DType::kF4) {
    return wrong(absl::StrCat("has type ", NameOf(view.dtype),
                              "; accepted are F32, F16, BF16, F8_E4M3 and F4. Convert the "
                              "checkpoint to one of them"));
  }
  const BlockScales& scales = view.scales;
  if (!scales.empty()) {
    if (scales.block_rows == 0 || scales.block_cols == 0) {
      return wrong("has scales for blocks of size 0");
    }
    if (scales.dtype != DType::kF32 && scales.dtype != DType::kF8E8M0) {
      return wrong(absl::StrCat("has scales of type ", NameOf(scales.dtype),
                                "; accepted are F32 and F8_E8M0"));
    }
  }
  return absl::OkStatus();
}

void DecodeRow(const MatrixView& view, size_t row, size_t begin, size_t count, float* target) {
  EXPERTMESH_CHECK(row < view.rows && begin + count <= view.cols);
  DecodeElements(view, row, begin, count, target);
  if (view.scales.empty()) {
    return;
  }
  const size_t block = view.scales.block_cols;
  for (size_t done = 0; done < count;) {
    const size_t column = begin + done + view.scales.col_offset;
    const size_t run = std::min(count - done, block - column % block);
    const float scale = ScaleAt(view.scales, row, column / block);
    for (size_t i = done; i < done + run; ++i) {
      target[i] *= scale;
    }
    done += run;
  }
}

void DecodeTile(const MatrixView& view, size_t row, size_t rows, size_t col, size_t cols,
                DType type, void* target, size_t stride) {
  auto* out = static_cast<uint8_t*>(target);
  std::vector<float> values(cols);
  for (size_t r = row; r < row + rows; ++r, out += stride * BytesOf(type)) {
    DecodeRow(view, r, col, cols, values.data());
    ConvertElements(DType::kF32, values.data(), type, out, cols);
  }
}

std::vector<float> DecodeMatrix(const MatrixView& view) {
  std::vector<float> values(view.rows * view.cols);
  for (size_t row = 0; row < view.rows; ++row) {
    DecodeRow(view, row, 0, view.cols, values.data() + row * view.cols);
  }
  return values;
}

}  // namespace expertmesh
