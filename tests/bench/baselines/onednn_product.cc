#include "tests/bench/baselines/onednn_product.h"

#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>

#include "common/base/cpu_features.h"

// From libgomp, the OpenMP that Debian's oneDNN is built with. Not through <omp.h>, which comes
// with a compiler.
extern "C" void omp_set_num_threads(int threads);

namespace expertmesh::bench {
namespace {

using dnnl::memory;

dnnl::cpu_isa OneDnnIsa(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kSse41:
      return dnnl::cpu_isa::sse41;
    case CpuIsa::kAvx2:
      return dnnl::cpu_isa::avx2;
    case CpuIsa::kAvx512:
      return dnnl::cpu_isa::avx512_core;
    case CpuIsa::kAvx512BF16:
      return dnnl::cpu_isa::avx512_core_bf16;
    case CpuIsa::kAmx:
      return dnnl::cpu_isa::all;
  }
  return dnnl::cpu_isa::all;
}

// Uses what the programs may use.
const dnnl::engine* MakeEngine() {
  if (UsableCpuIsa() < CpuIsaOfMachine()) {
    dnnl::set_max_cpu_isa(OneDnnIsa(UsableCpuIsa()));
  }
  return new dnnl::engine(dnnl::engine::kind::cpu, 0);
}

const dnnl::engine& Cpu() {
  static const dnnl::engine* const engine = MakeEngine();
  return *engine;
}

memory::desc Matrix(size_t rows, size_t columns, memory::data_type type, memory::format_tag tag) {
  return memory::desc({static_cast<memory::dim>(rows), static_cast<memory::dim>(columns)}, type,
                      tag);
}

memory Zeros(const memory::desc& desc) {
  memory zeros(desc, Cpu());
  std::memset(zeros.get_data_handle(), 0, desc.get_size());
  return zeros;
}

class Product final : public OneDnnProduct {
 public:
  explicit Product(const dnnl::matmul::primitive_desc& desc)
      : stream_(Cpu()),
        matmul_(desc),
        x_(Zeros(desc.src_desc())),
        weights_(Zeros(desc.weights_desc())),
        y_(Zeros(desc.dst_desc())) {}

  void Run() override {
    omp_set_num_threads(1);
    matmul_.execute(stream_,
                    {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, weights_}, {DNNL_ARG_DST, y_}});
  }

 private:
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  memory x_;
  memory weights_;
  memory y_;
};

}  // namespace

std::unique_ptr<OneDnnProduct> OneDnnProduct::Create(Dtype dtype, size_t rows, size_t inner,
                                                     size_t columns) {
  const memory::data_type type =
      dtype == Dtype::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
  omp_set_num_threads(1);
  try {
    const dnnl::matmul::desc desc(
        Matrix(rows, inner, type, memory::format_tag::ab),
        Matrix(inner, columns, type, memory::format_tag::any),
        Matrix(rows, columns, memory::data_type::f32, memory::format_tag::ab));
    return std::make_unique<Product>(dnnl::matmul::primitive_desc(desc, Cpu()));
  } catch (const dnnl::error&) {
    return nullptr;
  }
}

}  // namespace expertmesh::bench
