// What the gate of a layer thinks of experts, on a sample of rows: what balance losses need.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_SCORE_SAMPLE_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_SCORE_SAMPLE_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/balance/measures.h"
#include "common/gate/routed_tokens.h"
#include "common/model/routing_options.h"
#include "expertmesh/v1/balance.pb.h"

namespace expertmesh::balance_control {

// Thread-safe. Batches never wait for each other: one that finds another at work is not sampled.
class ScoreSample {
 public:
  explicit ScoreSample(const RoutingOptions& routing);

  // One row of a batch, another one each time. `logits`: [tokens, num_experts], those that the
  // batch was routed by; empty where the routing has none.
  void Add(absl::Span<const float> logits, const gate::RoutedTokens& routed);

  // Writes what was sampled since the last call into the fields of it; leaves them when nothing
  // was.
  void Take(v1::LayerMeasures* measures);

 private:
  const uint32_t num_experts_;
  const uint32_t top_k_;
  const ScoreFunction score_;

  absl::Mutex mutex_;
  uint64_t next_row_ ABSL_GUARDED_BY(mutex_) = 0;
  balance::ScoreAccumulator scores_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> assignments_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> first_choices_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_SCORE_SAMPLE_H_
