#include "common/gate/expert_choice.h"

#include <algorithm>
#include <cmath>

#include "common/gate/capacity.h"

namespace expertmesh::gate {

void ChooseTokens(const RoutingOptions& options, TieOrder ties, absl::Span<const float> scores,
                  ExpertChoiceScratch* scratch, SelectionScratch* selection, RoutedTokens* routed) {
  const size_t experts = options.num_experts;
  const size_t tokens = scores.size() / experts;
  if (tokens == 0) {
    return;
  }
  scratch->column.resize(tokens);
  scratch->chosen.resize(CapacityOf(options, tokens));
  scratch->taken.assign(scores.size(), 0);
  for (size_t expert = 0; expert < experts; ++expert) {
    for (size_t token = 0; token < tokens; ++token) {
      scratch->column[token] = scores[token * experts + expert];
    }
    SelectTopK(scratch->column, ties, /*sorted=*/true, selection, absl::MakeSpan(scratch->chosen));
    for (const uint32_t token : scratch->chosen) {
      scratch->taken[token * experts + expert] = 1;
    }
  }
  for (size_t token = 0; token < tokens; ++token) {
    const float* row = scores.data() + token * experts;
    scratch->order.clear();
    for (uint32_t expert = 0; expert < experts; ++expert) {
      if (scratch->taken[token * experts + expert] != 0) {
        scratch->order.push_back(expert);
      }
    }
    std::sort(scratch->order.begin(), scratch->order.end(), [row](uint32_t a, uint32_t b) {
      const bool larger = row[a] > row[b] || (std::isnan(row[a]) && !std::isnan(row[b]));
      const bool smaller = row[b] > row[a] || (std::isnan(row[b]) && !std::isnan(row[a]));
      return larger || (!smaller && a < b);
    });
    for (const uint32_t expert : scratch->order) {
      routed->expert_ids.push_back(expert);
      routed->weights.push_back(row[expert]);
    }
    routed->token_begin.push_back(static_cast<uint32_t>(routed->expert_ids.size()));
  }
}

}  // namespace expertmesh::gate
