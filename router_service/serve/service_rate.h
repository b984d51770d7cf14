// How many tokens a second are served, as far as the load allows to tell.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_SERVICE_RATE_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_SERVICE_RATE_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace expertmesh::serve {

// Only while there is always something to do does what is served tell what can be served; and since
// larger batches go faster, what holds at one load says little of one much larger. So there is a
// rate for what is held, when about so much has been held a moment ago, and else there is none.
// Not thread-safe.
class ServiceRate {
 public:
  // So many tokens are held from now on; `served` of those before were answered well.
  void Update(uint64_t held, uint64_t served, absl::Time now);

  // Time after which `tokens`, the next ones included, are served. Nothing: it is not known.
  std::optional<absl::Duration> TimeFor(uint64_t tokens, absl::Time now) const;
  // Tokens a second; nothing when it has not been measured lately.
  std::optional<double> rate(absl::Time now) const;

 private:
  void Measure(absl::Time now);

  // Since when there has always been something to do; what was served since, and the least that was
  // held.
  absl::Time begin_ = absl::InfiniteFuture();
  uint64_t served_ = 0;
  uint64_t least_held_ = 0;
  // Exponentially weighted mean of tokens a second, and the load that it was measured at last.
  double rate_ = 0;
  uint64_t load_ = 0;
  absl::Time measured_ = absl::InfinitePast();
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_SERVICE_RATE_H_
