#include "router_service/gate/gate_matmul.h"

#include <algorithm>
#include <array>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <tuple>
#include <utility>

#include "absl/base/call_once.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/matmul/single_threaded_openmp.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"
#include "router_service/gate/gate_tiles.h"

namespace expertmesh {
namespace {

using dnnl::memory;

// Row counts that have a kernel of their own: exact below kRowStep, then multiples of it. Few
// shapes, since each costs a quarter of a millisecond once; a batch is a multiple of kRowStep and a
// rest.
constexpr size_t kRowStep = 8;
constexpr size_t kKernelCount = kRowStep - 1 + GateMatmul::kMaxBlock / kRowStep;

size_t KernelIndex(size_t rows) {
  return rows < kRowStep ? rows - 1 : kRowStep - 2 + rows / kRowStep;
}

const dnnl::engine& Cpu() {
  static const dnnl::engine& engine = *new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

absl::Status FromStatus(dnnl_status_t status, const char* what, absl::string_view why) {
  const std::string message = absl::StrCat("gate product: oneDNN cannot ", what, ": ", why);
  switch (status) {
    case dnnl_out_of_memory:
      return absl::ResourceExhaustedError(message);
    case dnnl_unimplemented:
      return absl::UnimplementedError(message);
    default:
      return absl::InternalError(message);
  }
}

// Runs `body`, turning oneDNN's exceptions into a status.
template <typename Body>
absl::Status Guarded(const char* what, const Body& body) {
  try {
    // A gate is small, and the caller's threads are busy with other layers.
    const SingleThreadedOpenMP single;
    body();
    return absl::OkStatus();
  } catch (const dnnl::error& error) {
    return FromStatus(error.status, what, error.message);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat("gate product: no memory to ", what));
  }
}

memory::dim Dim(size_t size) { return static_cast<memory::dim>(size); }

}  // namespace

// Handles of oneDNN whose data is set for each product; making them, and its C++ execute,
// allocates.
struct GateMatmulScratch::Kept {
  struct Arguments {
    memory x;
    memory y;
    memory workspace;
  };
  // Of x and y.
  using Shape = std::tuple<size_t, size_t, size_t>;

  dnnl::stream stream{Cpu()};
  AlignedBuffer workspace;
  absl::flat_hash_map<Shape, Arguments> arguments;
  // For tiles.
  AlignedBuffer narrowed;
  GateTiles::Scratch tiles;
};

GateMatmulScratch::Kept& GateMatmulScratch::Get() {
  if (kept_ == nullptr) {
    kept_ = std::make_unique<Kept>();
  }
  return *kept_;
}

GateMatmulScratch::GateMatmulScratch() = default;
GateMatmulScratch::~GateMatmulScratch() = default;
GateMatmulScratch::GateMatmulScratch(GateMatmulScratch&&) noexcept = default;
GateMatmulScratch& GateMatmulScratch::operator=(GateMatmulScratch&&) noexcept = default;

struct GateMatmul::Kernels {
  // Made when a batch first needs it, then constant.
  struct Kernel {
    absl::once_flag once;
    absl::Status status;
    dnnl::matmul matmul;
    memory::desc x;
    memory::desc y;
    memory::desc workspace;
  };

  dnnl::matmul::primitive_desc Describe(size_t rows, const memory::desc& weights) const {
    const memory::desc x({Dim(rows), Dim(inputs)}, memory::data_type::f32, memory::format_tag::ab);
    const memory::desc y({Dim(rows), Dim(outputs)}, memory::data_type::f32, memory::format_tag::ab);
    dnnl::primitive_attr attributes;
    // The caller's, so that threads can run one kernel at once.
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return dnnl::matmul::primitive_desc(dnnl::matmul::desc(x, weights, y), attributes, Cpu());
  }

  void Pack(const float* source) {
    // Seen as [inputs, outputs], the row-major [outputs, inputs] is column-major.
    const memory::dims shape = {Dim(inputs), Dim(outputs)};
    const memory::desc any(shape, memory::data_type::f32, memory::format_tag::any);
    const memory::desc plain(shape, memory::data_type::f32, memory::format_tag::ba);
    packed = memory(Describe(kMaxBlock, any).weights_desc(), Cpu());
    memory from(plain, Cpu(), const_cast<float*>(source));  // NOLINT: oneDNN has no const memory.
    dnnl::stream stream(Cpu());
    dnnl::reorder(from, packed).execute(stream, from, packed);
    stream.wait();
  }

  absl::Status Make(size_t rows, Kernel* kernel) const {
    return Guarded("prepare a kernel", [&] {
      const dnnl::matmul::primitive_desc description = Describe(rows, packed.get_desc());
      kernel->matmul = dnnl::matmul(description);
      kernel->x = description.src_desc();
      kernel->y = description.dst_desc();
      kernel->workspace = description.scratchpad_desc();
    });
  }

  const Kernel& Get(size_t rows) const {
    Kernel& kernel = kernels[KernelIndex(rows)];
    absl::call_once(kernel.once, [&] { kernel.status = Make(rows, &kernel); });
    return kernel;
  }

  size_t outputs = 0;
  size_t inputs = 0;
  std::unique_ptr<const GateTiles> tiles;  // Null where they cannot be used.
  memory packed;                           // Constant after construction.
  mutable std::array<Kernel, kKernelCount> kernels;
};

GateMatmul::GateMatmul(std::unique_ptr<const Kernels> kernels) : kernels_(std::move(kernels)) {}
GateMatmul::~GateMatmul() = default;

absl::StatusOr<std::unique_ptr<const GateMatmul>> GateMatmul::Create(const float* weights,
                                                                     size_t outputs,
                                                                     size_t inputs) {
  EXPERTMESH_CHECK(outputs > 0 && inputs > 0);
  auto kernels = std::make_unique<Kernels>();
  kernels->outputs = outputs;
  kernels->inputs = inputs;
  RETURN_IF_ERROR(Guarded("pack the weights", [&] {
    kernels->tiles = GateTiles::Create(weights, outputs, inputs);
    kernels->Pack(weights);
  }));
  return std::unique_ptr<const GateMatmul>(new GateMatmul(std::move(kernels)));
}

size_t GateMatmul::bytes() const {
  return kernels_->packed.get_desc().get_size() +
         (kernels_->tiles == nullptr ? 0 : kernels_->tiles->bytes());
}

bool GateMatmul::TakesBF16() const { return kernels_->tiles != nullptr; }

void GateMatmul::RunBF16(const uint8_t* x, size_t rows, float* y,
                         GateMatmulScratch* scratch) const {
  EXPERTMESH_CHECK(TakesBF16());
  kernels_->tiles->Run(x, rows, y, &scratch->Get().tiles);
}

absl::Status GateMatmul::Run(const float* x, size_t rows, float* y,
                             GateMatmulScratch* scratch) const {
  const size_t inputs = kernels_->inputs;
  const auto is_bf16 = [&](size_t row) {
    return TakesBF16() && HoldsBF16({x + row * inputs, inputs});
  };
  for (size_t begin = 0, end = 0; begin < rows; begin = end) {
    const bool narrow = is_bf16(begin);
    for (end = begin + 1; end < rows && is_bf16(end) == narrow;) {
      ++end;
    }
    const float* const from = x + begin * inputs;
    float* const to = y + begin * kernels_->outputs;
    if (!narrow) {
      RETURN_IF_ERROR(RunFloats(from, end - begin, to, scratch));
      continue;
    }
    AlignedBuffer& narrowed = scratch->Get().narrowed;
    const size_t size = (end - begin) * inputs;
    narrowed.Resize(size * sizeof(uint16_t));
    ConvertElements(DType::kF32, from, DType::kBF16, narrowed.data(), size);
    RunBF16(narrowed.data(), end - begin, to, scratch);
  }
  return absl::OkStatus();
}

absl::Status GateMatmul::RunFloats(const float* x, size_t rows, float* y,
                                   GateMatmulScratch* scratch) const {
  while (rows > 0) {
    const size_t block = rows < kRowStep ? rows : std::min(rows / kRowStep * kRowStep, kMaxBlock);
    RETURN_IF_ERROR(RunBlock(x, block, y, scratch));
    x += block * kernels_->inputs;
    y += block * kernels_->outputs;
    rows -= block;
  }
  return absl::OkStatus();
}

absl::Status GateMatmul::RunBlock(const float* x, size_t rows, float* y,
                                  GateMatmulScratch* scratch) const {
  const Kernels::Kernel& kernel = kernels_->Get(rows);
  RETURN_IF_ERROR(kernel.status);
  dnnl_status_t status = dnnl_success;
  RETURN_IF_ERROR(Guarded("multiply", [&] {
    GateMatmulScratch::Kept& kept = scratch->Get();
    const GateMatmulScratch::Kept::Shape shape(rows, kernels_->inputs, kernels_->outputs);
    auto it = kept.arguments.find(shape);
    if (it == kept.arguments.end()) {
      GateMatmulScratch::Kept::Arguments made = {memory(kernel.x, Cpu(), nullptr),
                                                 memory(kernel.y, Cpu(), nullptr),
                                                 memory(kernel.workspace, Cpu(), nullptr)};
      it = kept.arguments.emplace(shape, std::move(made)).first;
    }
    GateMatmulScratch::Kept::Arguments& arguments = it->second;
    kept.workspace.Resize(std::max<size_t>(kernel.workspace.get_size(), 1));
    arguments.x.set_data_handle(const_cast<float*>(x));  // NOLINT: read only.
    arguments.y.set_data_handle(y);
    arguments.workspace.set_data_handle(kept.workspace.data());
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, arguments.x.get()},
                                    {DNNL_ARG_WEIGHTS, kernels_->packed.get()},
                                    {DNNL_ARG_DST, arguments.y.get()},
                                    {DNNL_ARG_SCRATCHPAD, arguments.workspace.get()}};
    // On a CPU done when it returns.
    status = dnnl_primitive_execute(kernel.matmul.get(), kept.stream.get(), 4, args);
  }));
  return status == dnnl_success ? absl::OkStatus()
                                : FromStatus(status, "multiply", absl::StrCat("status ", status));
}

}  // namespace expertmesh
