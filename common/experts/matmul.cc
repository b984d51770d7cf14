#include "common/experts/matmul.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

// From libgomp, the OpenMP that oneDNN is built with. Not through omp.h, which comes with a
// compiler.
extern "C" {
void omp_set_num_threads(int threads);
int omp_get_max_threads(void);
}

namespace expertmesh {
namespace {

using dnnl::memory;

// Of bf16 weights; up to 960 was seen to be safe on a core with 2 MiB of level 2 cache.
constexpr size_t kMaxInnerChunk = 512;
// Rows of the product whose kernel and layout set the standard.
constexpr size_t kCanonicalRows = 64;
// Narrower panels cost more calls than they win.
constexpr size_t kMinPanelColumns = 256;
constexpr size_t kMaxPanels = 64;

// Lives for ever: threads of other objects may still compute at exit.
const dnnl::engine& Engine() {
  static const dnnl::engine* const engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

memory::data_type TypeOf(DType dtype) {
  return dtype == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::dim Dim(size_t size) { return static_cast<memory::dim>(size); }

memory::desc RowMajor(size_t rows, size_t cols, memory::data_type type) {
  return memory::desc({Dim(rows), Dim(cols)}, type, memory::format_tag::ab);
}

memory::desc AnyLayout(DType dtype, size_t inner, size_t columns) {
  return memory::desc({Dim(inner), Dim(columns)}, TypeOf(dtype), memory::format_tag::any);
}

// Throws dnnl::error.
dnnl::matmul::primitive_desc Describe(DType dtype, size_t rows, const memory::desc& weights,
                                      bool add) {
  const size_t inner = static_cast<size_t>(weights.data.dims[0]);
  const size_t columns = static_cast<size_t>(weights.data.dims[1]);
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops post_ops;
    post_ops.append_sum(1.0f);
    attr.set_post_ops(post_ops);
  }
  const dnnl::matmul::desc desc(RowMajor(rows, inner, TypeOf(dtype)), weights,
                                RowMajor(rows, columns, memory::data_type::f32));
  return dnnl::matmul::primitive_desc(desc, attr, Engine());
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

void UseSingleThreadedOpenMP() { omp_set_num_threads(1); }

SingleThreadedOpenMP::SingleThreadedOpenMP() : before_(omp_get_max_threads()) {
  UseSingleThreadedOpenMP();
}

SingleThreadedOpenMP::~SingleThreadedOpenMP() { omp_set_num_threads(before_); }

bool MatmulSupports(DType dtype) {
  SingleThreadedOpenMP single;
  try {
    const auto desc = Describe(dtype, kCanonicalRows, AnyLayout(dtype, 256, 512), /*add=*/false);
    return !absl::StartsWith(desc.impl_info_str(), "ref");
  } catch (const dnnl::error&) {
    return false;
  }
}

absl::StatusOr<std::shared_ptr<const MatmulShape>> MatmulShape::Create(DType dtype, size_t inner,
                                                                       size_t columns) {
  EXPERTMESH_CHECK(inner > 0 && inner % kInnerStep == 0);
  EXPERTMESH_CHECK(columns > 0 && columns % kColumnStep == 0);
  SingleThreadedOpenMP single;
  std::shared_ptr<MatmulShape> shape(new MatmulShape());
  shape->dtype_ = dtype;
  shape->inner_ = inner;
  shape->columns_ = columns;
  // Float32 kernels never cut the inner dimension by the number of rows.
  const size_t limit = dtype == DType::kBF16 ? kMaxInnerChunk : inner;
  const size_t count = (inner + limit - 1) / limit;
  try {
    for (size_t begin = 0; begin < inner;) {
      Chunk chunk;
      chunk.begin = begin;
      const size_t left = count - shape->chunks_.size();
      chunk.inner = RoundUp((inner - begin + left - 1) / left, kInnerStep);
      const auto desc = Describe(dtype, kCanonicalRows, AnyLayout(dtype, chunk.inner, columns),
                                 /*add=*/begin > 0);
      chunk.packed = desc.weights_desc();
      chunk.offset = shape->bytes_;
      shape->bytes_ += RoundUp(chunk.packed.get_size(), 64);
      shape->fixed_rows_ = shape->fixed_rows_ || !ColumnsAreOutermost(chunk.packed, chunk.inner);
      begin += chunk.inner;
      shape->chunks_.push_back(std::move(chunk));
    }
    shape->AddSplits();
  } catch (const dnnl::error& error) {
    return FromError(
        error, absl::StrCat("lay out a ", NameOf(dtype), " matrix of ", inner, " x ", columns));
  }
  return shape;
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
    Split split{panels, columns_ / panels, 1};
    for (const Chunk& chunk : chunks_) {
      const memory::desc weights = PanelOf(chunk.packed, split.columns);
      const bool add = chunk.begin > 0;
      const std::string standard = Describe(dtype_, kCanonicalRows, weights, add).impl_info_str();
      while (split.min_rows < kCanonicalRows &&
             Describe(dtype_, split.min_rows, weights, add).impl_info_str() != standard) {
        ++split.min_rows;
      }
    }
    splits_.push_back(split);
  }
}

absl::Status MatmulShape::PackPanel(const Split& split, const void* source, void* packed) const {
  SingleThreadedOpenMP single;
  try {
    dnnl::stream stream(Engine());
    for (const Chunk& chunk : chunks_) {
      const memory::desc from({Dim(chunk.inner), Dim(split.columns)}, TypeOf(dtype_),
                              memory::dims{1, Dim(inner_)});
      const memory::desc to =
          split.panels == 1 ? chunk.packed : PanelOf(chunk.packed, split.columns);
      uint8_t* const start = const_cast<uint8_t*>(static_cast<const uint8_t*>(source));
      memory source_memory(from, Engine(), start + chunk.begin * BytesOf(dtype_));
      memory packed_memory(to, Engine(), static_cast<uint8_t*>(packed) + ChunkOffset(chunk, split));
      dnnl::reorder(source_memory, packed_memory).execute(stream, source_memory, packed_memory);
    }
    stream.wait();
  } catch (const dnnl::error& error) {
    return FromError(error, "pack weights");
  }
  return absl::OkStatus();
}

MatmulRunner::MatmulRunner() : stream_(Engine()) {}

MatmulRunner::Kernel& MatmulRunner::Get(const MatmulShape& shape, const MatmulShape::Chunk& chunk,
                                        size_t columns, size_t rows, bool add) {
  std::unique_ptr<Kernel>& kernel = kernels_[Key(shape.dtype(), chunk.inner, columns, rows, add)];
  if (kernel == nullptr) {
    const memory::desc weights =
        columns == shape.columns() ? chunk.packed : PanelOf(chunk.packed, columns);
    const auto desc = Describe(shape.dtype(), rows, weights, add);
    kernel = std::make_unique<Kernel>(
        Kernel{dnnl::matmul(desc), memory(desc.src_desc(), Engine(), nullptr),
               memory(weights, Engine(), nullptr), memory(desc.dst_desc(), Engine(), nullptr),
               memory(desc.scratchpad_desc(), Engine())});
  }
  return *kernel;
}

absl::Status MatmulRunner::Multiply(const MatmulShape& shape, const MatmulShape::Chunk& chunk,
                                    size_t columns, size_t rows, const uint8_t* x,
                                    const uint8_t* weights, float* y) {
  Kernel& kernel = Get(shape, chunk, columns, rows, /*add=*/chunk.begin > 0);
  // oneDNN reads x and weights only; its handles are not const.
  kernel.x.set_data_handle(const_cast<uint8_t*>(x) + rows * chunk.begin * BytesOf(shape.dtype()));
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
