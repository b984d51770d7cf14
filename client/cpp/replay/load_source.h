// The load that a simulated mesh gets, interval by interval.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_LOAD_SOURCE_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_LOAD_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/balance/routing_record.h"

namespace expertmesh::replay {

// Batches of about the same size.
struct BatchSize {
  // Mean of one batch.
  double tokens = 0;
  double batches = 0;
};

// One layer in one interval.
struct LayerLoad {
  double tokens = 0;
  // Its batches; empty without tokens.
  std::vector<BatchSize> batch_sizes;
  // [num_experts] As the checkpoint's gate alone routes.
  std::vector<double> assignments;
  // [num_experts] Of synthetic loads: what the tokens choose by (expert_choice.h). Empty: unknown,
  // so that what a bias would do cannot be said.
  std::vector<double> log_weights;
  // MaxVio(batch) of a batch of the interval, or the mean over those that were recorded.
  double batch_violation = 0;
  // [num_experts] Of synthetic loads: what chance adds to the counts of one batch, in standard
  // deviations.
  std::vector<double> noise;
};

struct IntervalLoad {
  double start_s = 0;
  // One for each layer of layers().
  std::vector<LayerLoad> layers;
};

// Not thread-safe.
class LoadSource {
 public:
  virtual ~LoadSource() = default;

  virtual absl::Span<const balance::RecordedLayer> layers() const = 0;
  virtual double interval_s() const = 0;
  virtual size_t intervals() const = 0;
  // Whether log_weights are known.
  virtual bool has_scores() const = 0;
  // In a sentence, for reports.
  virtual std::string Describe() const = 0;

  // The next interval; intervals() calls in all. Reuses the memory of `load`.
  virtual void Next(IntervalLoad* load) = 0;
};

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_LOAD_SOURCE_H_
