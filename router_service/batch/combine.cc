#include "router_service/batch/combine.h"

#include <algorithm>
#include <vector>

#include "common/base/check.h"

namespace expertmesh::batch {
namespace {

const void* RowOf(const Partials& partials, size_t row, size_t d_model) {
  return static_cast<const uint8_t*>(partials.data) + row * d_model * BytesOf(partials.dtype);
}

}  // namespace

void FindSlotPartials(const gate::RoutedTokens& routed,
                      absl::Span<const AssignmentContribution> contributions, size_t d_model,
                      SlotPartials* found) {
  found->slices = 1;
  for (const AssignmentContribution& contribution : contributions) {
    for (const uint32_t expert : contribution.plan->expert_ids) {
      found->slices = std::max(found->slices, (*contribution.replicas)[expert].slices.size());
    }
  }
  found->of_slot.assign(routed.expert_ids.size() * found->slices, {});
  for (const AssignmentContribution& contribution : contributions) {
    const plan::NodePlan& plan = *contribution.plan;
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      // A plan has a row's assignments in slot order, so each is found behind the one before.
      uint32_t slot = routed.token_begin[plan.rows[i]];
      for (uint32_t a = plan.row_begin[i]; a < plan.row_begin[i + 1]; ++a) {
        const uint32_t expert = plan.expert_ids[a];
        while (routed.expert_ids[slot] != expert) {
          ++slot;
          EXPERTMESH_CHECK(slot < routed.token_begin[plan.rows[i] + 1]);
        }
        const size_t slice = (*contribution.replicas)[expert].SliceOn(plan.node).value_or(0);
        found->of_slot[slot * found->slices + slice] = {RowOf(contribution.partials, a, d_model),
                                                        contribution.partials.dtype};
      }
    }
  }
}

void CombineInSlotOrder(const gate::RoutedTokens& routed, const SlotPartials& partials,
                        const float* shared, RowRange range, size_t d_model, float* output) {
  for (size_t i = 0; i < range.count; ++i) {
    const size_t token = range.first + i;
    float* const sum = output + i * d_model;
    std::fill_n(sum, d_model, 0.0f);
    const size_t end = routed.token_begin[token + 1] * partials.slices;
    for (size_t at = routed.token_begin[token] * partials.slices; at < end; ++at) {
      const Partials& row = partials.of_slot[at];
      if (row.data != nullptr) {
        AddElements(row.dtype, row.data, d_model, sum);
      }
    }
    if (shared != nullptr) {
      AddElements(DType::kF32, shared + token * d_model, d_model, sum);
    }
  }
}

void Combine(absl::Span<const Contribution> contributions, const float* shared, RowRange range,
             size_t d_model, float* output) {
  std::fill_n(output, range.count * d_model, 0.0f);
  for (const Contribution& contribution : contributions) {
    const absl::Span<const uint32_t> rows = contribution.rows;
    size_t i =
        static_cast<size_t>(std::lower_bound(rows.begin(), rows.end(), range.first) - rows.begin());
    for (; i < rows.size() && rows[i] < range.first + range.count; ++i) {
      AddElements(contribution.partials.dtype, RowOf(contribution.partials, i, d_model), d_model,
                  output + (rows[i] - range.first) * d_model);
    }
  }
  if (shared != nullptr) {
    AddElements(DType::kF32, shared + range.first * d_model, range.count * d_model, output);
  }
}

void AddComplements(const gate::RoutedTokens& routed, const void* hidden_states, DType dtype,
                    RowRange range, size_t d_model, float* output) {
  const auto* source = static_cast<const uint8_t*>(hidden_states);
  constexpr size_t kBlock = 256;  // Elements widened at a time.
  float block[kBlock];
  for (size_t token = range.first; token < range.first + range.count; ++token) {
    float* const sum = output + (token - range.first) * d_model;
    float left = 1.0f;
    for (uint32_t at = routed.token_begin[token]; at < routed.token_begin[token + 1]; ++at) {
      left -= routed.weights[at];
    }
    for (size_t begin = 0; begin < d_model; begin += kBlock) {
      const size_t count = std::min(kBlock, d_model - begin);
      const size_t at = token * d_model + begin;
      ConvertElements(dtype, source + at * BytesOf(dtype), DType::kF32, block, count);
      for (size_t i = 0; i < count; ++i) {
        sum[begin + i] += left * block[i];
      }
    }
  }
}

}  // namespace expertmesh::batch
