#include "common/experts/matmul.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/matmul/onednn.h"
#include "common/matmul/panel_product.h"
#include "common/matmul/single_threaded_openmp.h"

namespace expertmesh {
namespace {

using dnnl::memory;

// For oneDNN; up to 960 was seen to be safe on a core with 2 MiB of level 2 cache.
constexpr size_t kMaxInnerChunk = 512;
// Rows of the product whose kernel and layout set the standard.
constexpr size_t kCanonicalRows = 64;
// Narrower panels cost more calls than they win.
constexpr size_t kMinPanelColumns = 256;
constexpr size_t kMaxPanels = 64;
constexpr size_t kLine = 64;

memory::dim Dim(size_t size) { return static_cast<memory::dim>(size); }

memory::desc RowMajor(size_t rows, size_t cols, memory::data_type type) {
  return memory::desc({Dim(rows), Dim(cols)}, type, memory::format_tag::ab);
}

memory::desc AnyLayout(size_t inner, size_t columns) {
  return memory::desc({Dim(inner), Dim(columns)}, memory::data_type::bf16, memory::format_tag::any);
}

// Throws dnnl::error.
dnnl::matmul::primitive_desc Describe(size_t rows, const memory::desc& weights, bool add) {
  const size_t inner = static_cast<size_t>(weights.data.dims[0]);
  const size_t columns = static_cast<size_t>(weights.data.dims[1]);
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops post_ops;
    post_ops.append_sum(1.0f);
    attr.set_post_ops(post_ops);
  }
  const dnnl::matmul::desc desc(RowMajor(rows, inner, memory::data_type::bf16), weights,
                                RowMajor(rows, columns, memory::data_type::f32));
  return dnnl::matmul::primitive_desc(desc, attr, OneDnnEngine());
}

// Packed in blocks, with all of the inner dimension of 64 columns before the next 64: any run of
// such blocks is a packed matrix of its own.
bool ColumnsAreOutermost(const memory::desc& packed, size_t inner) {
  const auto& blocking = packed.data.format_desc.blocking;
  size_t columns_in_block = 1;
  for (int i = 0; i < blocking.inner_nblks; ++i) {
    if (blocking.inner_idxs[i] == 1) {
      columns_in_block *= static_cast<size_t>(blocking.inner_blks[i]);
    }
  }
  return packed.data.format_kind == dnnl_blocked && columns_in_block == kColumnStep &&
         static_cast<size_t>(blocking.strides[1]) == inner * kColumnStep;
}

// `columns` of a matrix whose columns are outermost.
memory::desc PanelOf(const memory::desc& packed, size_t columns) {
  dnnl_memory_desc_t data = packed.data;
  data.dims[1] = Dim(columns);
  data.padded_dims[1] = Dim(columns);
  return memory::desc(data);
}

absl::Status FromError(const dnnl::error& error, absl::string_view what) {
  return absl::InternalError(
      absl::StrCat("oneDNN could not ", what, ": ", error.what(), " (status ", error.status, ")"));
}

absl::Status CannotMultiply(const dnnl::error& error, const MatmulShape& shape,
                            const MatmulShape::Split& split, size_t rows) {
  return FromError(error, absl::StrCat("multiply ", rows, " rows by a matrix of ", shape.inner(),
                                       " x ", split.columns));
}

}  // namespace

bool MatmulSupportsBF16() {
  SingleThreadedOpenMP single;
  try {
    const auto desc = Describe(kCanonicalRows, AnyLayout(256, 512), /*add=*/false);
    return !absl::StartsWith(desc.impl_info_str(), "ref");
  } catch (const dnnl::error&) {
    return false;
  }
}

absl::StatusOr<std::shared_ptr<const MatmulShape>> MatmulShape::Create(DType dtype, size_t inner,
                                                                       size_t columns, bool tiles) {
  EXPERTMESH_CHECK(inner > 0 && inner % kInnerStep == 0);
  EXPERTMESH_CHECK(columns > 0 && columns % kColumnStep == 0);
  SingleThreadedOpenMP single;
  std::shared_ptr<MatmulShape> shape(new MatmulShape());
  shape->dtype_ = dtype;
  shape->inner_ = inner;
  shape->columns_ = columns;
  shape->kernel_ = dtype == DType::kF32 ? MatmulKernel::kPanels
                   : tiles              ? MatmulKernel::kTiles
                                        : MatmulKernel::kOneDnn;
  const bool cut = shape->kernel_ == MatmulKernel::kOneDnn;
  const size_t count = cut ? (inner + kMaxInnerChunk - 1) / kMaxInnerChunk : 1;
  try {
    for (size_t begin = 0, left = count; begin < inner; --left) {
      shape->AddChunk(begin, RoundUp((inner - begin + left - 1) / left, kInnerStep));
      begin += shape->chunks_.back().inner;
    }
    shape->AddSplits();
  } catch (const dnnl::error& error) {
    return FromError(
        error, absl::StrCat("lay out a ", NameOf(dtype), " matrix of ", inner, " x ", columns));
  }
  return shape;
}

void MatmulShape::AddChunk(size_t begin, size_t inner) {
  Chunk chunk;
  chunk.begin = begin;
  chunk.inner = inner;
  chunk.offset = bytes_;
  chunk.x_row_bytes = inner * BytesOf(dtype_);
  chunk.x_begin = begin * BytesOf(dtype_);
  size_t bytes = inner * columns_ * BytesOf(dtype_);
  if (kernel_ == MatmulKernel::kOneDnn) {
    chunk.packed =
        Describe(kCanonicalRows, AnyLayout(inner, columns_), /*add=*/begin > 0).weights_desc();
    fixed_rows_ = fixed_rows_ || !ColumnsAreOutermost(chunk.packed, inner);
    bytes = chunk.packed.get_size();
  } else {
    // Rows at multiples of 4 KiB would push each other out of the level 1 cache.
    chunk.x_row_bytes += kLine;
  }
  if (kernel_ == MatmulKernel::kTiles) {
    chunk.packed = memory::desc({Dim(inner), Dim(columns_)}, memory::data_type::bf16,
                                memory::format_tag::BA16a64b2a);
  }
  bytes_ += RoundUp(bytes, kLine);
  chunks_.push_back(std::move(chunk));
}

void MatmulShape::AddSplits() {
  if (fixed_rows_) {
    splits_.push_back({1, columns_, kFixedRows});
    return;
  }
  const size_t blocks = columns_ / kColumnStep;
  for (size_t panels = 1; panels <= kMaxPanels; ++panels) {
    if (panels > 1 && (blocks % panels != 0 || columns_ / panels < kMinPanelColumns)) {
      continue;
    }
    const bool any = kernel_ != MatmulKernel::kOneDnn;
    splits_.push_back({panels, columns_ / panels, any ? 1 : MinRows(columns_ / panels)});
  }
}

size_t MatmulShape::MinRows(size_t columns) const {
  size_t rows = 1;
  for (const Chunk& chunk : chunks_) {
    const memory::desc weights = PanelOf(chunk.packed, columns);
    const bool add = chunk.begin > 0;
    const std::string standard = Describe(kCanonicalRows, weights, add).impl_info_str();
    while (rows < kCanonicalRows && Describe(rows, weights, add).impl_info_str() != standard) {
      ++rows;
    }
  }
  return rows;
}

size_t MatmulShape::PaddedRows(const Split& split, size_t count) const {
  if (kernel_ != MatmulKernel::kOneDnn) {
    return count;
  }
  // Every number up to 8, then multiples of 8: few kernels, little padding.
  return std::max(count <= 8 ? count : RoundUp(count, 8), split.min_rows);
}

absl::Status MatmulShape::PackPanel(const Split& split, const void* source, void* packed) const {
  if (kernel_ == MatmulKernel::kPanels) {
    PackPanels(static_cast<const float*>(source), split.columns, inner_, inner_,
               static_cast<float*>(packed));
    return absl::OkStatus();
  }
  SingleThreadedOpenMP single;
  try {
    dnnl::stream stream(OneDnnEngine());
    for (const Chunk& chunk : chunks_) {
      const memory::desc from({Dim(chunk.inner), Dim(split.columns)}, memory::data_type::bf16,
                              memory::dims{1, Dim(inner_)});
      const memory::desc to =
          split.panels == 1 ? chunk.packed : PanelOf(chunk.packed, split.columns);
      uint8_t* const start = const_cast<uint8_t*>(static_cast<const uint8_t*>(source));
      memory source_memory(from, OneDnnEngine(), start + chunk.begin * BytesOf(dtype_));
      memory packed_memory(to, OneDnnEngine(),
                           static_cast<uint8_t*>(packed) + ChunkOffset(chunk, split));
      dnnl::reorder(source_memory, packed_memory).execute(stream, source_memory, packed_memory);
    }
    stream.wait();
  } catch (const dnnl::error& error) {
    return FromError(error, "pack weights");
  }
  return absl::OkStatus();
}

MatmulRunner::MatmulRunner() : stream_(OneDnnEngine()) {}

MatmulRunner::Kernel& MatmulRunner::Get(const MatmulShape& shape, const MatmulShape::Chunk& chunk,
                                        size_t columns, size_t rows, bool add) {
  std::unique_ptr<Kernel>& kernel = kernels_[Key(chunk.inner, columns, rows, add)];
  if (kernel == nullptr) {
    const memory::desc weights =
        columns == shape.columns() ? chunk.packed : PanelOf(chunk.packed, columns);
    const auto desc = Describe(rows, weights, add);
    kernel = std::make_unique<Kernel>(Kernel{
        dnnl::matmul(desc), memory(desc.src_desc(), OneDnnEngine(), nullptr),
        memory(weights, OneDnnEngine(), nullptr), memory(desc.dst_desc(), OneDnnEngine(), nullptr),
        memory(desc.scratchpad_desc(), OneDnnEngine())});
  }
  return *kernel;
}

absl::Status MatmulRunner::Multiply(const MatmulShape& shape, const MatmulShape::Chunk& chunk,
                                    size_t columns, size_t rows, const uint8_t* x,
                                    const uint8_t* weights, float* y) {
  x += shape.XOffset(chunk, rows, 0);
  if (shape.kernel() == MatmulKernel::kPanels) {
    PanelProduct{reinterpret_cast<const float*>(x),
                 chunk.x_row_bytes / sizeof(float),
                 rows,
                 chunk.inner,
                 columns,
                 reinterpret_cast<const float*>(weights),
                 y,
                 columns}
        .Run();
    return absl::OkStatus();
  }
  if (shape.kernel() == MatmulKernel::kTiles) {
    TileProduct{x, chunk.x_row_bytes, rows, chunk.inner, columns, weights, y}.Run();
    return absl::OkStatus();
  }
  Kernel& kernel = Get(shape, chunk, columns, rows, /*add=*/chunk.begin > 0);
  // oneDNN reads x and weights only; its handles are not const.
  kernel.x.set_data_handle(const_cast<uint8_t*>(x));
  kernel.weights.set_data_handle(const_cast<uint8_t*>(weights));
  kernel.y.set_data_handle(y);
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, kernel.x.get()},
                                  {DNNL_ARG_WEIGHTS, kernel.weights.get()},
                                  {DNNL_ARG_DST, kernel.y.get()},
                                  {DNNL_ARG_SCRATCHPAD, kernel.scratchpad.get()}};
  const dnnl_status_t status = dnnl_primitive_execute(kernel.matmul.get(), stream_.get(), 4, args);
  return status == dnnl_success
             ? absl::OkStatus()
             : absl::InternalError(absl::StrCat("oneDNN failed to multiply (status ", status, ")"));
}

absl::Status MatmulRunner::Run(const MatmulShape& shape, const MatmulShape::Split& split,
                               size_t panel, size_t rows, const uint8_t* x, const uint8_t* packed,
                               float* y) {
  try {
    for (const MatmulShape::Chunk& chunk : shape.chunks()) {
      RETURN_IF_ERROR(Multiply(shape, chunk, split.columns, rows, x,
                               packed + shape.PanelOffset(chunk, split, panel), y));
    }
  } catch (const dnnl::error& error) {
    return CannotMultiply(error, shape, split, rows);
  }
  return absl::OkStatus();
}

absl::Status MatmulRunner::RunPanel(const MatmulShape& shape, const MatmulShape::Split& split,
                                    size_t rows, const uint8_t* x, const uint8_t* packed_panel,
                                    float* y) {
  try {
    for (const MatmulShape::Chunk& chunk : shape.chunks()) {
      RETURN_IF_ERROR(Multiply(shape, chunk, split.columns, rows, x,
                               packed_panel + shape.ChunkOffset(chunk, split), y));
    }
  } catch (const dnnl::error& error) {
    return CannotMultiply(error, shape, split, rows);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh
