#include "common/checkpoint/expert_digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/tensor/matrix_slice.h"

namespace expertmesh::checkpoint {
namespace {

// Rows that are not side by side are collected in pieces of about this many bytes.
constexpr size_t kPieceBytes = 64 << 10;

class Digest {
 public:
  Digest() {
    XXH3_64bits_reset(state_.get());
    AddText("expertmesh expert 1");
  }

  void Add(const MatrixView& view) {
    const BlockScales& scales = view.scales;
    const bool by_columns = view.row_stride == 1 && view.col_stride > 1;
    AddText(absl::StrCat(NameOf(view.dtype), " ", view.rows, " ", view.cols,
                         by_columns ? " by columns" : ""));
    if (view.empty()) {
      return;
    }
    if (!scales.empty()) {
      AddText(absl::StrCat(NameOf(scales.dtype), " ", scales.block_rows, " ", scales.block_cols,
                           " ", scales.row_offset, " ", scales.col_offset));
    }
    MatrixView values = view;
    values.scales = {};
    const size_t row_bytes = StoredBytes(values) / view.rows;
    const bool adjacent =
        view.col_stride == 1 && view.row_stride * BitsOf(view.dtype) == row_bytes * 8;
    if (adjacent) {
      AddBytes(view.data, view.rows * row_bytes);
    } else if (by_columns) {
      const size_t bytes = BytesOf(view.dtype);
      for (size_t column = 0; column < view.cols; ++column) {
        AddBytes(view.data + column * view.col_stride * bytes, view.rows * bytes);
      }
    } else {
      AddInPieces(values, std::max<size_t>(1, kPieceBytes / row_bytes));
    }
    if (!scales.empty()) {
      AddScales(view);
    }
  }

  uint64_t Finish() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };

  void AddBytes(const void* data, size_t size) { XXH3_64bits_update(state_.get(), data, size); }

  // With its end.
  void AddText(const std::string& text) { AddBytes(text.c_str(), text.size() + 1); }

  void AddInPieces(const MatrixView& values, size_t rows_together) {
    for (size_t row = 0; row < values.rows; row += rows_together) {
      const MatrixView piece = RowsOf(values, row, std::min(rows_together, values.rows - row));
      piece_.resize(StoredBytes(piece));
      CopyStored(piece, piece_.data());
      AddBytes(piece_.data(), piece_.size());
    }
  }

  // One row of blocks after the other.
  void AddScales(const MatrixView& view) {
    const BlockScales& scales = view.scales;
    const size_t bytes = BytesOf(scales.dtype);
    const size_t rows = (scales.row_offset + view.rows + scales.block_rows - 1) / scales.block_rows;
    const size_t cols = (scales.col_offset + view.cols + scales.block_cols - 1) / scales.block_cols;
    for (size_t row = 0; row < rows; ++row) {
      AddBytes(scales.data + row * scales.row_stride * bytes, cols * bytes);
    }
  }

  const std::unique_ptr<XXH3_state_t, Free> state_{XXH3_createState()};
  std::vector<uint8_t> piece_;
};

}  // namespace

uint64_t DigestOf(const ExpertWeights& weights) {
  Digest digest;
  for (const MatrixView* view : {&weights.gate, &weights.up, &weights.down, &weights.gate_bias,
                                 &weights.up_bias, &weights.down_bias}) {
    digest.Add(*view);
  }
  return digest.Finish();
}

}  // namespace expertmesh::checkpoint
