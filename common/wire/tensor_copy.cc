#include "common/wire/tensor_copy.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/base/message_bytes.h"
#include "common/tensor/int8_blocks.h"

namespace expertmesh {
namespace {

// Bytes decoded at a time: what they become is still in the first-level cache when it is looked at.
constexpr size_t kPiece = 8 << 10;

// Converts a run of bytes that arrives in pieces; an element may lie across two of them.
class PieceConverter {
 public:
  PieceConverter(Dtype from, Dtype to, void* target)
      : from_(from),
        to_(to),
        from_bytes_(BytesOf(from)),
        to_bytes_(BytesOf(to)),
        target_(static_cast<uint8_t*>(target)) {}

  // Where the next element goes.
  const uint8_t* end() const { return target_; }

  void Add(const uint8_t* data, size_t size) {
    if (partial_size_ > 0) {
      const size_t take = std::min(size, from_bytes_ - partial_size_);
      std::memcpy(partial_.data() + partial_size_, data, take);
      partial_size_ += take;
      data += take;
      size -= take;
      if (partial_size_ < from_bytes_) {
        return;
      }
      Convert(partial_.data(), 1);
      partial_size_ = 0;
    }
    const size_t whole = size / from_bytes_;
    Convert(data, whole);
    partial_size_ = size - whole * from_bytes_;
    std::memcpy(partial_.data(), data + whole * from_bytes_, partial_size_);
  }

 private:
  void Convert(const uint8_t* data, size_t count) {
    ConvertElements(from_, data, to_, target_, count);
    target_ += count * to_bytes_;
  }

  const Dtype from_;
  const Dtype to_;
  const size_t from_bytes_;
  const size_t to_bytes_;
  uint8_t* target_;
  std::array<uint8_t, 4> partial_{};
  size_t partial_size_ = 0;
};

// Reads values that lie one after the other in a frame, across its slices.
class ScaleReader {
 public:
  explicit ScaleReader(const Frame& scales) : slices_(scales.slices()) {}

  // The scale of the next block. Must not be called after the last.
  float Next() {
    float scale = 0.0f;
    auto* out = reinterpret_cast<uint8_t*>(&scale);
    for (size_t left = sizeof(scale); left > 0;) {
      const Slice& slice = slices_[slice_];
      const size_t count = std::min(left, slice.size() - offset_);
      std::memcpy(out, slice.data() + offset_, count);
      out += count;
      left -= count;
      offset_ += count;
      if (offset_ == slice.size()) {
        ++slice_;
        offset_ = 0;
      }
    }
    return scale;
  }

 private:
  const absl::Span<const Slice> slices_;
  size_t slice_ = 0;
  size_t offset_ = 0;
};

// The same for blocks of integers, one scale to each; a block may lie across two pieces.
class BlockConverter {
 public:
  BlockConverter(const TensorFrame& tensor, Dtype to, void* target)
      : cols_(tensor.cols),
        to_(to),
        to_bytes_(BytesOf(to)),
        target_(static_cast<uint8_t*>(target)),
        scales_(tensor.scales) {}

  const uint8_t* end() const { return target_; }

  void Add(const uint8_t* data, size_t size) {
    while (size > 0) {
      if (left_of_block_ == 0) {
        scale_ = scales_.Next();
        left_of_block_ = std::min(kInt8Block, cols_ - column_);
        column_ = column_ + left_of_block_ == cols_ ? 0 : column_ + left_of_block_;
      }
      const size_t count = std::min(size, left_of_block_);
      DequantiseBlock(data, scale_, count, to_, target_);
      data += count;
      size -= count;
      target_ += count * to_bytes_;
      left_of_block_ -= count;
    }
  }

 private:
  const size_t cols_;
  const Dtype to_;
  const size_t to_bytes_;
  uint8_t* target_;
  ScaleReader scales_;
  float scale_ = 0.0f;
  size_t left_of_block_ = 0;
  size_t column_ = 0;  // Where the next block begins.
};

// Whether all that `converter` makes of `data`, elements of `to`, is finite.
template <typename Converter>
bool AddPieces(const Frame& data, Dtype to, Converter converter) {
  bool finite = true;
  for (const Slice& slice : data.slices()) {
    for (size_t at = 0; at < slice.size(); at += kPiece) {
      const uint8_t* const begin = converter.end();
      converter.Add(slice.data() + at, std::min(kPiece, slice.size() - at));
      const size_t count = static_cast<size_t>(converter.end() - begin) / BytesOf(to);
      finite = !HasNonFinite(to, begin, count) && finite;
    }
  }
  return finite;
}

}  // namespace

bool DecodeRows(const TensorFrame& tensor, Dtype dtype, void* target) {
  if (tensor.dtype == Dtype::kI8Block128) {
    return AddPieces(tensor.data, dtype, BlockConverter(tensor, dtype, target));
  }
  return AddPieces(tensor.data, dtype, PieceConverter(tensor.dtype, dtype, target));
}

uint64_t CopyRows(const TensorFrame& tensor, Dtype dtype, void* target) {
  CountCopiedTensorBytes(tensor.data.size());
  if (DecodeRows(tensor, dtype, target)) {
    return 0;
  }
  // On the converted values: conversion keeps NaN and infinity, and makes an infinity of what
  // overflows.
  uint64_t nonfinite = 0;
  const size_t row_bytes = tensor.cols * BytesOf(dtype);
  for (uint64_t row = 0; row < tensor.rows; ++row) {
    if (HasNonFinite(dtype, static_cast<const uint8_t*>(target) + row * row_bytes, tensor.cols)) {
      ++nonfinite;
    }
  }
  return nonfinite;
}

void SelectRows(const std::shared_ptr<const AlignedBuffer>& matrix, size_t row_bytes,
                absl::Span<const uint32_t> rows, BufferPool* pool, Frame* frame) {
  size_t runs = rows.empty() ? 0 : 1;
  for (size_t i = 1; i < rows.size(); ++i) {
    runs += rows[i] != rows[i - 1] + 1 ? 1 : 0;
  }
  if (runs > 1 && rows.size() * row_bytes < runs * kShareFrom) {
    const std::shared_ptr<AlignedBuffer> copied = TakeBuffer(pool, rows.size() * row_bytes);
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(copied->data() + i * row_bytes, matrix->data() + rows[i] * row_bytes, row_bytes);
    }
    CountCopiedTensorBytes(copied->size());
    frame->Append(Slice(copied->data(), copied->size(), copied));
    return;
  }
  frame->Reserve(frame->slices().size() + runs, pool);
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1) {
      ++end;
    }
    frame->Append(
        Slice(matrix->data() + rows[begin] * row_bytes, (end - begin) * row_bytes, matrix));
    begin = end;
  }
}

}  // namespace expertmesh
