#include "common/tensor/decode_matrix.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/tensor/decode_kernels.h"
#include "common/tensor/matrix_tile.h"

namespace expertmesh {
namespace {

// Elements decoded at a time.
constexpr size_t kRun = 1024;
// Rows of a transposed matrix that are worth the visit to a column, which is on a page of its own.
constexpr size_t kBand = 256;

// 2^(byte - 127); 255 is NaN. The smallest, 2^-127, is a float32 subnormal.
float FromE8M0(uint8_t byte) {
  if (byte == 255) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  return byte == 0 ? std::bit_cast<float>(0x00400000u) : std::bit_cast<float>(uint32_t{byte} << 23);
}

// The scale of element (row, column); 1 without scales.
float ScaleAt(const BlockScales& scales, size_t row, size_t column) {
  if (scales.empty()) {
    return 1.0f;
  }
  const size_t index = (row + scales.row_offset) / scales.block_rows * scales.row_stride +
                       (column + scales.col_offset) / scales.block_cols;
  if (scales.dtype == Dtype::kF8E8M0) {
    return FromE8M0(scales.data[index]);
  }
  if (scales.dtype == Dtype::kF32) {
    float scale;
    std::memcpy(&scale, scales.data + index * sizeof(scale), sizeof(scale));
    return scale;
  }
  uint16_t bits;
  std::memcpy(&bits, scales.data + index * sizeof(bits), sizeof(bits));
  return scales.dtype == Dtype::kBF16 ? FloatFromBF16(bits) : FloatFromF16(bits);
}

// Columns from `column` on, at most `count`, that share a scale.
size_t SameScale(const BlockScales& scales, size_t column, size_t count) {
  return scales.empty() ? count
                        : std::min(count, scales.block_cols -
                                              (column + scales.col_offset) % scales.block_cols);
}

// Below, `source` is where the bytes of element (row, column) are, and the `count` elements from
// there on lie side by side; `type` is kF32 or kBF16.

void DecodeF8(const MatrixView& view, size_t row, size_t column, size_t count,
              const uint8_t* source, Dtype type, uint8_t* target) {
  const DecodeKernels& kernels = GetDecodeKernels();
  for (size_t done = 0; done < count;) {
    const size_t run = SameScale(view.scales, column + done, count - done);
    const float scale = ScaleAt(view.scales, row, column + done);
    if (type == Dtype::kBF16) {
      kernels.f8_to_bf16(source + done, run, scale, reinterpret_cast<uint16_t*>(target) + done);
    } else {
      kernels.f8_to_f32(source + done, run, scale, reinterpret_cast<float*>(target) + done);
    }
    done += run;
  }
}

// Blocks whose elements are not all asked for, or do not start a byte, pass through a whole one.
void DecodeF4(const MatrixView& view, size_t row, size_t column, size_t count, Dtype type,
              uint8_t* target) {
  const DecodeKernels& kernels = GetDecodeKernels();
  for (size_t done = 0; done < count;) {
    const size_t element = row * view.row_stride + column + done;
    const uint8_t* const source = view.data + element / 2;
    const size_t run = SameScale(view.scales, column + done, count - done);
    float scales[kF4MaxBlocks];
    size_t blocks = 0;
    while (element % 2 == 0 && blocks < kF4MaxBlocks) {
      const size_t next = done + blocks * kF4Block;
      if (SameScale(view.scales, column + next, count - next) < kF4Block) {
        break;
      }
      scales[blocks++] = ScaleAt(view.scales, row, column + next);
    }
    uint8_t* const out = target + done * BytesOf(type);
    if (blocks > 0) {
      type == Dtype::kBF16
          ? kernels.f4_to_bf16(source, blocks, scales, reinterpret_cast<uint16_t*>(out))
          : kernels.f4_to_f32(source, blocks, scales, reinterpret_cast<float*>(out));
      done += blocks * kF4Block;
      continue;
    }
    const size_t skip = element % 2;
    const size_t part = std::min(run, kF4Block - skip);
    uint8_t block[kF4Block / 2] = {};
    std::memcpy(block, source, (skip + part + 1) / 2);
    float values[kF4Block];
    const float scale = ScaleAt(view.scales, row, column + done);
    kernels.f4_to_f32(block, 1, &scale, values);
    ConvertElements(Dtype::kF32, values + skip, type, out, part);
    done += part;
  }
}

// Converts elements of an activation type and multiplies them by their scales.
void DecodeScaled(const MatrixView& view, size_t row, size_t column, size_t count,
                  const uint8_t* source, Dtype type, uint8_t* target) {
  float values[kRun];
  for (size_t done = 0; done < count;) {
    const size_t run = std::min(kRun, SameScale(view.scales, column + done, count - done));
    const float scale = ScaleAt(view.scales, row, column + done);
    ConvertElements(view.dtype, source + done * BytesOf(view.dtype), Dtype::kF32, values, run);
    for (size_t i = 0; i < run; ++i) {
      values[i] *= scale;
    }
    ConvertElements(Dtype::kF32, values, type, target + done * BytesOf(type), run);
    done += run;
  }
}

void DecodeRun(const MatrixView& view, size_t row, size_t column, size_t count,
               const uint8_t* source, Dtype type, uint8_t* target) {
  if (view.dtype == Dtype::kF4) {
    DecodeF4(view, row, column, count, type, target);
  } else if (view.dtype == Dtype::kF8E4M3) {
    DecodeF8(view, row, column, count, source, type, target);
  } else if (!view.scales.empty()) {
    DecodeScaled(view, row, column, count, source, type, target);
  } else {
    ConvertElements(view.dtype, source, type, target, count);
  }
}

// A tile of at most kTile by kTile elements that are not side by side.
void DecodeStrided(const MatrixView& view, size_t row, size_t rows, size_t column, size_t cols,
                   Dtype type, uint8_t* target, size_t stride) {
  uint8_t tile[kTile * kTile * sizeof(float)];
  const size_t bytes = BytesOf(view.dtype);
  CollectTile(view, row, rows, column, cols, tile);
  for (size_t r = 0; r < rows; ++r) {
    DecodeRun(view, row + r, column, cols, tile + r * kTile * bytes, type,
              target + r * stride * BytesOf(type));
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
  if (view.dtype == Dtype::kF4 && (view.col_stride != 1 || view.row_stride % 2 != 0)) {
    return wrong("of type F4 must have rows of whole bytes");
  }
  if (!IsActivationDtype(view.dtype) && view.dtype != Dtype::kF8E4M3 && view.dtype != Dtype::kF4) {
    return wrong(absl::StrCat("has type ", NameOf(view.dtype),
                              "; accepted are F32, F16, BF16, F8_E4M3 and F4. Convert the "
                              "checkpoint to one of them"));
  }
  const BlockScales& scales = view.scales;
  if (!scales.empty()) {
    if (scales.block_rows == 0 || scales.block_cols == 0) {
      return wrong("has scales for blocks of size 0");
    }
    if (!IsScaleDtype(scales.dtype)) {
      return wrong(absl::StrCat("has scales of type ", NameOf(scales.dtype),
                                "; accepted are F32, BF16, F16 and F8_E8M0"));
    }
  }
  return absl::OkStatus();
}

void DecodeRow(const MatrixView& view, size_t row, size_t begin, size_t count, float* target) {
  DecodeTile(view, row, 1, begin, count, Dtype::kF32, target, count);
}

void DecodeTile(const MatrixView& view, size_t row, size_t rows, size_t col, size_t cols,
                Dtype type, void* target, size_t stride) {
  EXPERTMESH_CHECK(row + rows <= view.rows && col + cols <= view.cols);
  EXPERTMESH_CHECK(type == Dtype::kF32 || type == Dtype::kBF16);
  auto* const out = static_cast<uint8_t*>(target);
  const size_t row_bytes = stride * BytesOf(type);
  if (view.col_stride == 1) {
    for (size_t r = 0; r < rows; ++r) {
      const size_t first = ((row + r) * view.row_stride + col) * BitsOf(view.dtype) / 8;
      DecodeRun(view, row + r, col, cols, view.data + first, type, out + r * row_bytes);
    }
    return;
  }
  for (size_t band = 0; band < rows; band += kBand) {
    const size_t band_end = std::min(rows, band + kBand);
    for (size_t c = 0; c < cols; c += kTile) {
      for (size_t r = band; r < band_end; r += kTile) {
        DecodeStrided(view, row + r, std::min(kTile, rows - r), col + c, std::min(kTile, cols - c),
                      type, out + r * row_bytes + c * BytesOf(type), stride);
      }
    }
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
