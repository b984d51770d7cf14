// How much of the CPU a node that serves loads experts with.
#ifndef EXPERTMESH_EXPERT_SERVICE_GENTLE_PACE_H_
#define EXPERTMESH_EXPERT_SERVICE_GENTLE_PACE_H_

#include <algorithm>

#include "absl/time/time.h"

namespace expertmesh::node {

// A node that serves has so many times as much CPU as it loads experts with. That its loading
// thread has a low priority is not enough: priorities count inside of a session or a control group
// only, and others of this machine that serve may be in their own. With four nodes on two cores
// that all load, an eighth doubled the 99th percentile of answers, a 32nd leaves it within half as
// much again (tests/integration/test_replacement.py measures it).
inline constexpr int kServingPerLoading = 32;

// How long one loading thread rests after it used so much CPU time, on a node of so many threads.
inline absl::Duration RestAfter(absl::Duration cpu_time, int threads) {
  return cpu_time * std::max(0, kServingPerLoading - threads) / threads;
}

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_GENTLE_PACE_H_
