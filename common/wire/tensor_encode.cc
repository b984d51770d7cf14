#include "common/wire/tensor_encode.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/tensor/aligned_buffer.h"
#include "common/tensor/int8_blocks.h"
#include "common/wire/tensor_copy.h"

namespace expertmesh {
namespace {

Slice Share(std::shared_ptr<AlignedBuffer> buffer) {
  const uint8_t* const data = buffer->data();
  const size_t size = buffer->size();
  return Slice(data, size, std::move(buffer));
}

// `row_of(i)`: where row i of the result is.
template <typename RowOf>
TensorFrame Encode(Dtype from, size_t rows, size_t cols, Dtype to, BufferPool* pool, RowOf row_of) {
  RowEncoder encoder(from, rows, cols, to, pool);
  for (size_t row = 0; row < rows; ++row) {
    encoder.Encode(row, row_of(row));
  }
  return encoder.Finish();
}

}  // namespace

RowEncoder::RowEncoder(Dtype from, size_t rows, size_t cols, Dtype to, BufferPool* pool)
    : from_(from),
      to_(to),
      rows_(rows),
      cols_(cols),
      data_(TakeBuffer(pool, rows * cols * BytesOf(to))) {
  if (to == Dtype::kI8Block128) {
    scales_ = TakeBuffer(pool, rows * Int8Blocks(cols) * sizeof(float));
  }
}

bool RowEncoder::Encode(size_t row, const void* source) const {
  void* const target = Place(row);
  if (scales_ != nullptr) {  // Whose range is that of float32.
    QuantiseRow(from_, source, cols_, static_cast<int8_t*>(target),
                scales_->as<float>() + row * Int8Blocks(cols_));
    return true;
  }
  ConvertElements(from_, source, to_, target, cols_);
  return !IsLossy(from_, to_) || !HasNonFinite(to_, target, cols_) ||
         !HasOverflow(from_, source, cols_, to_);
}

TensorFrame RowEncoder::Finish() {
  TensorFrame tensor{to_, rows_, cols_, {}};
  tensor.data.Append(Share(std::move(data_)));
  if (scales_ != nullptr) {
    tensor.scales.Append(Share(std::move(scales_)));
  }
  return tensor;
}

uint64_t WireRowBytes(Dtype dtype, uint64_t cols) {
  const uint64_t scales = dtype == Dtype::kI8Block128 ? Int8Blocks(cols) * sizeof(float) : 0;
  return cols * BytesOf(dtype) + scales;
}

TensorFrame EncodeRows(Dtype from, const void* matrix, absl::Span<const uint32_t> rows, size_t cols,
                       Dtype to, BufferPool* pool) {
  const auto* const bytes = static_cast<const uint8_t*>(matrix);
  const size_t row_bytes = cols * BytesOf(from);
  return Encode(from, rows.size(), cols, to, pool,
                [&](size_t row) { return bytes + rows[row] * row_bytes; });
}

TensorFrame EncodeRows(Dtype from, const void* matrix, size_t rows, size_t cols, Dtype to,
                       BufferPool* pool) {
  const auto* const bytes = static_cast<const uint8_t*>(matrix);
  const size_t row_bytes = cols * BytesOf(from);
  return Encode(from, rows, cols, to, pool, [&](size_t row) { return bytes + row * row_bytes; });
}

TensorFrame RowsOf(const TensorFrame& tensor, uint64_t first, uint64_t count) {
  TensorFrame part{tensor.dtype, count, tensor.cols, {}};
  const uint64_t data = tensor.cols * BytesOf(tensor.dtype);
  const uint64_t scales = WireRowBytes(tensor.dtype, tensor.cols) - data;
  part.data = tensor.data.Sub(first * data, count * data);
  part.scales = tensor.scales.Sub(first * scales, count * scales);
  return part;
}

float LargestFinite(Dtype from, const void* row, size_t cols) {
  const auto* const bytes = static_cast<const uint8_t*>(row);
  float largest = 0.0f;
  for (size_t i = 0; i < cols; ++i) {
    float value = 0.0f;
    ConvertElements(from, bytes + i * BytesOf(from), Dtype::kF32, &value, 1);
    largest = std::isfinite(value) ? std::max(largest, std::abs(value)) : largest;
  }
  return largest;
}

bool IsLossy(Dtype from, Dtype to) { return from != to && to != Dtype::kF32; }

bool CanOverflow(Dtype from, Dtype to) {
  return IsLossy(from, to) && to != Dtype::kI8Block128;  // Whose scales have float32's range.
}

double RelativeChange(const float* before, const float* after, size_t count) {
  double difference = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const double change = static_cast<double>(after[i]) - before[i];
    difference += change * change;
    norm += static_cast<double>(before[i]) * before[i];
  }
  return difference == 0.0 ? 0.0 : std::sqrt(difference / norm);
}

double EncodingError(Dtype from, const void* row, size_t cols, Dtype to, BufferPool* pool) {
  const std::shared_ptr<AlignedBuffer> floats = TakeBuffer(pool, 2 * cols * sizeof(float));
  float* const before = floats->as<float>();
  float* const after = before + cols;
  ConvertElements(from, row, Dtype::kF32, before, cols);
  DecodeRows(EncodeRows(from, row, 1, cols, to, pool), Dtype::kF32, after);
  return RelativeChange(before, after, cols);
}

}  // namespace expertmesh
