#include "common/balance/plan_moves.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace expertmesh::balance {
namespace {

constexpr uint32_t kNone = LayerCopies::kNone;

bool Has(absl::Span<const HeldCopy> held, uint32_t node) {
  return std::any_of(held.begin(), held.end(),
                     [node](const HeldCopy& copy) { return copy.node == node; });
}

bool Has(absl::Span<const ExpertCopy> planned, uint32_t node) {
  return std::any_of(planned.begin(), planned.end(),
                     [node](const ExpertCopy& copy) { return copy.node == node; });
}

std::vector<ExpertCopy> CopiesOf(const LayerCopies& copies, uint32_t expert) {
  const uint32_t count = copies.count_of_expert(expert);
  const uint32_t first = copies.first_of_expert(expert);
  if (count == 1) {
    return {{copies.copy(first).node, 1.0f}};
  }
  std::vector<ExpertCopy> written;
  written.reserve(count);
  double rest = 1;
  const double load = copies.problem().loads[expert];
  for (uint32_t at = first; at != kNone; at = copies.copy(at).next_of_expert) {
    const double share = load > 0 ? std::clamp(copies.copy(at).rows / load, 0.0, 1.0) : 1.0 / count;
    written.push_back({copies.copy(at).node, static_cast<float>(share)});
    rest -= static_cast<double>(written.back().share);
  }
  // What rounding left goes where it is least.
  std::max_element(written.begin(), written.end(), [](const ExpertCopy& a, const ExpertCopy& b) {
    return a.share < b.share;
  })->share += static_cast<float>(rest);
  std::sort(written.begin(), written.end(),
            [](const ExpertCopy& a, const ExpertCopy& b) { return a.node < b.node; });
  return written;
}

// Moves of one expert; `move` says what is the same for all.
void AppendMovesOf(CopyMove move, uint64_t bytes, absl::Span<const HeldCopy> held,
                   absl::Span<const ExpertCopy> planned, PlanningResult* result) {
  size_t at = 0;
  const auto next_freed = [&] {
    while (at < held.size() && Has(planned, held[at].node)) {
      ++at;
    }
    return at < held.size() ? held[at++].node : CopyMove::kNoNode;
  };
  const auto append = [&] {
    result->bytes_loaded += move.to == CopyMove::kNoNode ? 0 : bytes;
    result->bytes_freed += move.from == CopyMove::kNoNode ? 0 : bytes;
    result->moves.push_back(move);
  };
  for (const HeldCopy& copy : held) {
    move.copy_number += Has(planned, copy.node) ? 1 : 0;
  }
  for (const ExpertCopy& copy : planned) {
    if (!Has(held, copy.node)) {
      ++move.copy_number;
      move.copy_share = copy.share;
      move.to = copy.node;
      move.from = next_freed();
      append();
    }
  }
  move.copy_number = 0;
  move.copy_share = 0;
  move.to = CopyMove::kNoNode;
  for (move.from = next_freed(); move.from != CopyMove::kNoNode; move.from = next_freed()) {
    append();
  }
}

}  // namespace

LayerPlacement PlacementOf(uint32_t layer, const LayerCopies& copies) {
  LayerPlacement placement;
  placement.layer = layer;
  placement.experts.reserve(copies.problem().experts());
  for (uint32_t expert = 0; expert < copies.problem().experts(); ++expert) {
    placement.experts.push_back(CopiesOf(copies, expert));
  }
  return placement;
}

LayerPlacement PlacementOf(uint32_t layer, uint32_t experts, absl::Span<const HeldCopy> held) {
  LayerPlacement placement;
  placement.layer = layer;
  placement.experts.resize(experts);
  for (const HeldCopy& copy : held) {
    placement.experts[copy.expert].push_back({copy.node, copy.share});
  }
  return placement;
}

void AppendMoves(size_t position, uint64_t expert_bytes, absl::Span<const double> loads,
                 absl::Span<const HeldCopy> held, const LayerPlacement& planned,
                 PlanningResult* result) {
  const double all_loads = std::accumulate(loads.begin(), loads.end(), 0.0);
  size_t begin = 0;
  for (uint32_t expert = 0; expert < loads.size(); ++expert) {
    size_t end = begin;
    while (end < held.size() && held[end].expert == expert) {
      ++end;
    }
    CopyMove move;
    move.layer_position = static_cast<uint32_t>(position);
    move.expert = expert;
    move.expert_share = static_cast<float>(loads[expert] / all_loads);
    move.copies = static_cast<uint32_t>(planned.experts[expert].size());
    AppendMovesOf(move, expert_bytes, held.subspan(begin, end - begin), planned.experts[expert],
                  result);
    begin = end;
  }
}

std::string ReasonFor(const PlanningResult& result, double hysteresis, double kept_gain,
                      size_t kept_layer) {
  size_t changed = 0;
  size_t first = 0;
  double before = 0;
  double after = 0;
  for (const LayerForecast& layer : result.layers) {
    if (layer.changed) {
      const bool had_plan = std::isfinite(layer.present_fullest);
      ++changed;
      first += had_plan ? 0 : 1;
      before += had_plan ? layer.present_fullest / layer.mean : 0;
      after += had_plan ? layer.fullest / layer.mean : 0;
    }
  }
  const size_t layers = result.layers.size();
  if (changed == 0) {
    return absl::StrFormat(
        "no layer's fullest node gets lower by more than %.3g %%; the most is %.3g %%, in "
        "layer %d",
        100 * hysteresis, 100 * kept_gain, result.layers[kept_layer].layer);
  }
  std::string reason = absl::StrFormat("%d of %d layers change", changed, layers);
  if (first > 0) {
    absl::StrAppend(&reason, ", ", first, " of them for copies that experts must have");
  }
  if (changed > first) {
    const auto others = static_cast<double>(changed - first);
    absl::StrAppendFormat(&reason, "; fullest node %.3f -> %.3f of the mean on average",
                          before / others, after / others);
  }
  absl::StrAppend(&reason, "; ", result.bytes_loaded, " bytes to load, ", result.bytes_freed,
                  " to free");
  return reason;
}

}  // namespace expertmesh::balance
