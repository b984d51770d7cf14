// Prints the CPU's name and then its instruction sets, the widest that may be used first, each with
// whether the suites can run with it: "used", "beyond EXPERTMESH_MAX_CPU_ISA", or "this CPU has
// none". tests/run.sh reads it.
#include <cstdio>
#include <string>

#include "common/base/cpu_features.h"

namespace {

using expertmesh::CpuIsa;

const char* StateOf(CpuIsa isa) {
  if (isa > expertmesh::CpuIsaOfMachine()) {
    return "this CPU has none";
  }
  return isa > expertmesh::UsableCpuIsa() ? "beyond EXPERTMESH_MAX_CPU_ISA" : "used";
}

}  // namespace

int main() {
  std::printf("%s\n", expertmesh::CpuModelName().c_str());
  for (const CpuIsa isa :
       {CpuIsa::kAmx, CpuIsa::kAvx512BF16, CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kSse41}) {
    std::printf("%s %s\n", std::string(NameOf(isa)).c_str(), StateOf(isa));
  }
}
