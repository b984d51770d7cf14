#include "common/base/cpu_features.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace expertmesh {
namespace {

constexpr char kVariable[] = "EXPERTMESH_MAX_CPU_ISA";

constexpr std::array<std::pair<CpuIsa, absl::string_view>, 5> kNames = {{
    {CpuIsa::kSse41, "sse41"},
    {CpuIsa::kAvx2, "avx2"},
    {CpuIsa::kAvx512, "avx512"},
    {CpuIsa::kAvx512BF16, "avx512_bf16"},
    {CpuIsa::kAmx, "amx"},
}};

#if defined(__x86_64__)

// GCC 12 knows no name for it.
bool CpuHasAmxBF16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kFeatures = 7;
  constexpr unsigned kAmxBF16 = 1u << 22;
  constexpr unsigned kAmxTile = 1u << 24;
  return __get_cpuid_count(kFeatures, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmxBF16) != 0 &&
         (edx & kAmxTile) != 0;
}

CpuIsa ReadMachine() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c")) {
    return CpuIsa::kSse41;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512cd")) {
    return CpuIsa::kAvx2;
  }
  if (!__builtin_cpu_supports("avx512bf16")) {
    return CpuIsa::kAvx512;
  }
  return CpuHasAmxBF16() ? CpuIsa::kAmx : CpuIsa::kAvx512BF16;
}

#else

CpuIsa ReadMachine() { return CpuIsa::kSse41; }

#endif

CpuIsa ReadUsable() {
  const CpuIsa machine = CpuIsaOfMachine();
  const char* const limit = std::getenv(kVariable);
  if (limit == nullptr || *limit == '\0') {
    return machine;
  }
  const absl::StatusOr<CpuIsa> parsed = ParseCpuIsa(limit);
  if (!parsed.ok()) {
    // A user who asks for an instruction set must not silently get another one.
    std::fprintf(stderr, "%s: %s\n", kVariable, std::string(parsed.status().message()).c_str());
    std::exit(EXIT_FAILURE);
  }
  return std::min(machine, *parsed);
}

}  // namespace

absl::string_view NameOf(CpuIsa isa) { return kNames[static_cast<size_t>(isa)].second; }

absl::StatusOr<CpuIsa> ParseCpuIsa(absl::string_view name) {
  for (const auto& [isa, known] : kNames) {
    if (name == known) {
      return isa;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", name, "' is no instruction set; use ",
                   absl::StrJoin(kNames, ", ", [](std::string* out, const auto& named) {
                     absl::StrAppend(out, named.second);
                   })));
}

CpuIsa CpuIsaOfMachine() {
  static const CpuIsa isa = ReadMachine();
  return isa;
}

CpuIsa UsableCpuIsa() {
  static const CpuIsa isa = ReadUsable();
  return isa;
}

std::string CpuModelName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (absl::StripAsciiWhitespace(field.first) == "model name") {
      return std::string(absl::StripAsciiWhitespace(field.second));
    }
  }
  return "unknown";
}

}  // namespace expertmesh
