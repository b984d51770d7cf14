// Which variants of a vector loop this machine can run. One place, so that all loops agree.
#ifndef EXPERTMESH_COMMON_BASE_CPU_FEATURES_H_
#define EXPERTMESH_COMMON_BASE_CPU_FEATURES_H_

namespace expertmesh {

inline bool CpuHasAvx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2");
#else
  return false;
#endif
}

// The parts of AVX-512 that every server CPU with AVX-512 has: F, BW, VL and DQ.
inline bool CpuHasAvx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_CPU_FEATURES_H_
