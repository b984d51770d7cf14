// What this machine can do at best, for experts to be held against.
#ifndef EXPERTMESH_TESTS_BENCH_BASELINES_CEILINGS_H_
#define EXPERTMESH_TESTS_BENCH_BASELINES_CEILINGS_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/tensor/dtype.h"

namespace expertmesh::bench {

// Bytes per second that `threads` threads read from memory, of an array that no cache holds.
absl::StatusOr<double> ReadBandwidth(int threads, absl::Duration duration);

// Operations per second of products of `dtype` on `threads` threads at once: the best of a few
// sizes with packed weights that stay in a core's cache, by oneDNN and by our own kernel.
absl::StatusOr<double> ProductRate(Dtype dtype, int threads, absl::Duration duration);

}  // namespace expertmesh::bench

#endif  // EXPERTMESH_TESTS_BENCH_BASELINES_CEILINGS_H_
