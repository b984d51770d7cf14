// Quantiles of the time that a layer takes, when its slowest node decides.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_LATENCY_MIXTURE_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_LATENCY_MIXTURE_H_

#include <vector>

#include "absl/types/span.h"

namespace expertmesh::replay {

// A node's part of a batch: normal, since it is a sum over many tokens.
struct NodeTime {
  double mean_us = 0;
  double deviation_us = 0;
};

// Batches of several kinds: of layers, of sizes. Nodes are taken to be independent. Not
// thread-safe.
class LatencyMixture {
 public:
  // Keeps what can matter: nodes that may be the slowest. No nodes: no batches of that kind.
  void Add(double batches, absl::Span<const NodeTime> nodes);

  // The time within which `share` (above 0, below 1) of all batches are done. 0 without batches.
  double Quantile(double share) const;

 private:
  double ShareWithin(double time_us) const;

  struct Kind {
    double batches = 0;
    std::vector<NodeTime> nodes;
  };
  std::vector<Kind> kinds_;
  double batches_ = 0;
};

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_LATENCY_MIXTURE_H_
