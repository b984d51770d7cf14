// What `expertmesh top` shows, worked out of two readings. Pure.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_TOP_FIGURES_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_TOP_FIGURES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "client/cpp/command/top_reading.h"

namespace expertmesh::command {

// Rates are of the time between the readings; unset: there was one reading, or a counter began
// again.

struct NodeFigures {
  client::NodeInfo node;
  std::optional<double> assignments_per_second;
  // Computed for each assignment; unset as well when there were none.
  std::optional<absl::Duration> compute_each;
  // Seconds computed in a second.
  std::optional<double> busy;
};

struct LayerFigures {
  uint32_t layer = 0;
  uint64_t tokens = 0;
  std::optional<double> tokens_per_second;
  // Seconds that all nodes computed for it in a second.
  std::optional<double> busy;
  // In TopFigures::window.
  double max_violation = 0;
  uint64_t compared_tokens = 0;
  uint64_t changed_tokens = 0;
};

// In TopFigures::window.
struct ExpertFigures {
  uint32_t layer = 0;
  uint32_t expert = 0;
  uint64_t assignments = 0;
  // What it got over what each expert of the layer gets when load is even.
  double over_even = 0;
};

struct StageFigures {
  const char* name = "";
  absl::Duration median;
  absl::Duration p90;
  absl::Duration longest;
};

struct TopFigures {
  // Between the readings; unset: there are no rates.
  std::optional<absl::Duration> interval;
  // Tokens of the layer that had most, which are the model's where a token goes through all, and of
  // all layers together.
  std::optional<double> tokens_per_second;
  std::optional<double> layer_tokens_per_second;
  absl::Duration window;
  // First those that are not up, then the busiest.
  std::vector<NodeFigures> nodes;
  // The busiest first, and of those alike the one with the most uneven load.
  std::vector<LayerFigures> layers;
  // Those with the most assignments beyond an even share.
  std::vector<ExpertFigures> experts;
  // Empty without traces; else queue, route, nodes, combine, all.
  std::vector<StageFigures> stages;
};

// `before` may be null.
TopFigures FiguresOf(const TopReading& now, const TopReading* before);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_TOP_FIGURES_H_
