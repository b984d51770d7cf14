// Which instruction sets this process uses. One place, so that all loops agree.
//
// The environment variable EXPERTMESH_MAX_CPU_ISA leaves wider ones out, for tests and for
// comparing machines: sse41, avx2, avx512, avx512_bf16 or amx. It is read once, and any other value
// ends the process with a message.
#ifndef EXPERTMESH_COMMON_BASE_CPU_FEATURES_H_
#define EXPERTMESH_COMMON_BASE_CPU_FEATURES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh {

// Each one has all that stand before it.
enum class CpuIsa {
  kSse41,       // What every loop can do without.
  kAvx2,        // With FMA and F16C.
  kAvx512,      // F, BW, VL, DQ and CD: what every server CPU with AVX-512 has.
  kAvx512BF16,  // Products of bfloat16.
  kAmx,         // Tiles of bfloat16.
};

// As EXPERTMESH_MAX_CPU_ISA spells it.
absl::string_view NameOf(CpuIsa isa);
// INVALID_ARGUMENT names the accepted values.
absl::StatusOr<CpuIsa> ParseCpuIsa(absl::string_view name);

// The widest that this CPU has, whatever the environment says.
CpuIsa CpuIsaOfMachine();
// The widest that this process may use. Never changes while it runs.
CpuIsa UsableCpuIsa();

inline bool CpuHasAvx2() { return UsableCpuIsa() >= CpuIsa::kAvx2; }
inline bool CpuHasAvx512() { return UsableCpuIsa() >= CpuIsa::kAvx512; }

// "AMD EPYC 9B45", or "unknown".
std::string CpuModelName();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_CPU_FEATURES_H_
