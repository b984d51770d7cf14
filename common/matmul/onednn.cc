#include "common/matmul/onednn.h"

#include "common/base/cpu_features.h"

namespace expertmesh {
namespace {

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

const dnnl::engine* Make() {
  // Nothing to limit: ONEDNN_MAX_CPU_ISA, oneDNN's own variable, stays in force.
  if (UsableCpuIsa() < CpuIsaOfMachine()) {
    dnnl::set_max_cpu_isa(OneDnnIsa(UsableCpuIsa()));
  }
  return new dnnl::engine(dnnl::engine::kind::cpu, 0);
}

}  // namespace

const dnnl::engine& OneDnnEngine() {
  static const dnnl::engine* const engine = Make();
  return *engine;
}

}  // namespace expertmesh
