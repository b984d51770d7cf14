// How gently experts are moved. Plain data.
#ifndef EXPERTMESH_ROUTER_SERVICE_MOVES_MOVER_OPTIONS_H_
#define EXPERTMESH_ROUTER_SERVICE_MOVES_MOVER_OPTIONS_H_

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace expertmesh::moves {

struct MoverOptions {
  // Most bytes of weights loaded, by all nodes together and by each; 0: no bound. Within any time
  // not more than that and one chunk.
  uint64_t bytes_per_second = uint64_t{256} << 20;
  uint64_t node_bytes_per_second = uint64_t{64} << 20;
  // A node is asked for so much at once, but always for one expert.
  uint64_t chunk_bytes = uint64_t{32} << 20;
  // Most experts in one request.
  size_t chunk_experts = 1024;
  // For the answer to one request.
  absl::Duration call_timeout = absl::Minutes(2);
  // How long a node may be away, or say something else than it answered, before a move fails.
  absl::Duration patience = absl::Seconds(30);
  // After a request that was lost, times the number of those in a row; so many may be.
  absl::Duration retry_delay = absl::Seconds(1);
  int most_failures = 5;
};

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_ROUTER_SERVICE_MOVES_MOVER_OPTIONS_H_
