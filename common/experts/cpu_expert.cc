#include "common/experts/cpu_expert.h"

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "common/experts/elementwise.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh {
namespace {

static_assert(kInterleave == kInnerStep && 2 * kInterleave == kColumnStep);

absl::Status CheckView(absl::string_view name, const MatrixView& view, size_t rows, size_t cols) {
  if (view.rows != rows || view.cols != cols) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert weight '", name, "' is [", view.rows, ", ", view.cols,
                     "] but d_model and intermediate_size call for [", rows, ", ", cols, "]"));
  }
  if (!IsActivationDType(view.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert weight '", name, "' is ", NameOf(view.dtype),
                     "; the CPU backend takes F32, F16 and BF16: convert the checkpoint"));
  }
  if (view.data == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("expert weight '", name, "' has no data"));
  }
  return absl::OkStatus();
}

// Converts rows of a matrix.
class RowReader {
 public:
  RowReader(const MatrixView& view, DType dtype)
      : view_(view), dtype_(dtype), element_(BytesOf(view.dtype)) {}

  // Elements [begin, begin + count) of row `row`.
  void Read(size_t row, size_t begin, size_t count, uint8_t* target) {
    const uint8_t* source =
        view_.data + (row * view_.row_stride + begin * view_.col_stride) * element_;
    if (view_.col_stride != 1) {
      dense_.resize(count * element_);
      for (size_t i = 0; i < count; ++i) {
        std::memcpy(dense_.data() + i * element_, source + i * view_.col_stride * element_,
                    element_);
      }
      source = dense_.data();
    }
    if (view_.dtype == dtype_) {
      std::memcpy(target, source, count * element_);
    } else {
      ConvertElements(view_.dtype, source, dtype_, target, count);
    }
  }

 private:
  const MatrixView& view_;
  const DType dtype_;
  const size_t element_;
  std::vector<uint8_t> dense_;
};

absl::Status PackUp(const ExpertSizes& sizes, const ExpertWeights& weights, size_t first_row,
                    const MatmulShape& shape, AlignedBuffer& staging, uint8_t* packed) {
  const size_t element = BytesOf(shape.dtype());
  const size_t row_bytes = shape.inner() * element;
  staging.Resize(shape.columns() * row_bytes);
  RowReader gate(weights.gate, shape.dtype());
  RowReader up(weights.up, shape.dtype());
  for (size_t column = 0; column < shape.columns(); ++column) {
    uint8_t* const target = staging.data() + column * row_bytes;
    const size_t row = column / (2 * kInterleave) * kInterleave + column % kInterleave;
    const size_t filled = row < sizes.intermediate ? sizes.d_model : 0;
    if (filled > 0) {
      RowReader& reader = column / kInterleave % 2 == 0 ? gate : up;
      reader.Read(first_row + row, 0, filled, target);
    }
    std::memset(target + filled * element, 0, row_bytes - filled * element);
  }
  return shape.Pack(staging.data(), packed);
}

absl::Status PackDown(const ExpertSizes& sizes, const ExpertWeights& weights, size_t first_col,
                      const MatmulShape& shape, AlignedBuffer& staging, uint8_t* packed) {
  const size_t element = BytesOf(shape.dtype());
  const size_t row_bytes = shape.inner() * element;
  staging.Resize(shape.columns() * row_bytes);
  RowReader down(weights.down, shape.dtype());
  for (size_t column = 0; column < shape.columns(); ++column) {
    uint8_t* const target = staging.data() + column * row_bytes;
    const size_t filled = column < sizes.d_model ? sizes.intermediate : 0;
    if (filled > 0) {
      down.Read(column, first_col, filled, target);
    }
    std::memset(target + filled * element, 0, row_bytes - filled * element);
  }
  return shape.Pack(staging.data(), packed);
}

}  // namespace

absl::StatusOr<ExpertSizes> CheckExpert(const ExpertOptions& options, const ExpertWeights& weights,
                                        IntermediateSlice slice) {
  const size_t d_model = options.d_model;
  const size_t intermediate = options.intermediate_size;
  if (d_model == 0 || intermediate == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "d_model (", d_model, ") and intermediate_size (", intermediate, ") must be positive"));
  }
  if (options.activation != Activation::kSilu) {
    return absl::InvalidArgumentError("the CPU backend knows the activation SiLU only");
  }
  RETURN_IF_ERROR(CheckView("gate", weights.gate, intermediate, d_model));
  RETURN_IF_ERROR(CheckView("up", weights.up, intermediate, d_model));
  RETURN_IF_ERROR(CheckView("down", weights.down, d_model, intermediate));
  if (slice.count == 0 || slice.index >= slice.count) {
    return absl::InvalidArgumentError(absl::StrCat("slice ", slice.index, " of ", slice.count,
                                                   " does not exist; slices count from 0"));
  }
  if (intermediate % slice.count != 0) {
    return absl::InvalidArgumentError(absl::StrCat("intermediate_size ", intermediate,
                                                   " does not divide into ", slice.count,
                                                   " slices; choose a divisor"));
  }
  return ExpertSizes{d_model, intermediate / slice.count};
}

absl::StatusOr<std::shared_ptr<const CpuExpert>> CpuExpert::Pack(
    const ExpertSizes& sizes, const ExpertWeights& weights, IntermediateSlice slice,
    std::shared_ptr<const MatmulShape> up, std::shared_ptr<const MatmulShape> down,
    bool huge_pages) {
  std::shared_ptr<CpuExpert> expert(new CpuExpert());
  ASSIGN_OR_RETURN(expert->memory_,
                   PackedMemory::Allocate(up->bytes() + down->bytes(), huge_pages));
  const size_t first = slice.index * sizes.intermediate;
  uint8_t* const packed = expert->memory_.data();
  AlignedBuffer staging;
  RETURN_IF_ERROR(PackUp(sizes, weights, first, *up, staging, packed));
  RETURN_IF_ERROR(PackDown(sizes, weights, first, *down, staging, packed + up->bytes()));
  expert->d_model_ = sizes.d_model;
  expert->up_ = std::move(up);
  expert->down_ = std::move(down);
  return expert;
}

}  // namespace expertmesh
