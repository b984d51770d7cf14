// How the time that something takes grows with its size, told so that neither a slow machine nor a
// busy one changes the answer: by the processor time of this thread, as a ratio of two sizes.
#ifndef EXPERTMESH_TESTS_SUPPORT_GROWTH_H_
#define EXPERTMESH_TESTS_SUPPORT_GROWTH_H_

#include <algorithm>
#include <cstddef>
#include <limits>

#include "absl/time/time.h"
#include "common/base/thread_cpu_time.h"

namespace expertmesh {

// Time of work(factor * size) over that of work(size), measured again as long as it is above
// `enough`: what other threads do to a core's caches may lengthen a measurement or two, not all.
template <typename Work>
double GrowthOf(const Work& work, size_t size, size_t factor, double enough) {
  const auto seconds = [&work](size_t of) {
    const absl::Duration begin = ThreadCpuTime();
    work(of);
    return absl::ToDoubleSeconds(ThreadCpuTime() - begin);
  };
  work(size);  // What is done once only.
  double least = std::numeric_limits<double>::infinity();
  for (int attempt = 0; attempt < 5 && least > enough; ++attempt) {
    const double small = seconds(size);
    least = std::min(least, seconds(factor * size) / small);
  }
  return least;
}

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_GROWTH_H_
