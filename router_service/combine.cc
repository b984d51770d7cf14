#include "router_service/combine.h"

#include <algorithm>
#include <vector>

#include "common/base/check.h"

namespace expertmesh {
namespace {

// [assignments, slices] The row of partials of each, null where there is none.
struct AssignmentRows {
  size_t slices = 1;
  std::vector<const float*> rows;
};

void FindRows(const RoutedTokens& routed, absl::Span<const AssignmentContribution> contributions,
              size_t d_model, AssignmentRows* found) {
  found->slices = 1;
  for (const AssignmentContribution& contribution : contributions) {
    for (const uint32_t expert : contribution.plan->expert_ids) {
      found->slices = std::max(found->slices, (*contribution.replicas)[expert].slices.size());
    }
  }
  found->rows.assign(routed.expert_ids.size() * found->slices, nullptr);
  for (const AssignmentContribution& contribution : contributions) {
    const NodePlan& plan = *contribution.plan;
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
        found->rows[slot * found->slices + slice] = contribution.partials + a * d_model;
      }
    }
  }
}

}  // namespace

void CombineInSlotOrder(const RoutedTokens& routed,
                        absl::Span<const AssignmentContribution> contributions, const float* shared,
                        size_t d_model, float* output) {
  thread_local AssignmentRows found;
  FindRows(routed, contributions, d_model, &found);
  for (size_t token = 0; token < routed.tokens(); ++token) {
    float* const sum = output + token * d_model;
    std::fill_n(sum, d_model, 0.0f);
    const size_t end = routed.token_begin[token + 1] * found.slices;
    for (size_t at = routed.token_begin[token] * found.slices; at < end; ++at) {
      if (found.rows[at] != nullptr) {
        AddElements(found.rows[at], d_model, sum);
      }
    }
    if (shared != nullptr) {
      AddElements(shared + token * d_model, d_model, sum);
    }
  }
}

void Combine(absl::Span<const Contribution> contributions, const float* shared, size_t rows,
             size_t d_model, float* output) {
  std::fill_n(output, rows * d_model, 0.0f);
  for (const Contribution& contribution : contributions) {
    for (size_t i = 0; i < contribution.rows.size(); ++i) {
      AddElements(contribution.partials + i * d_model, d_model,
                  output + contribution.rows[i] * d_model);
    }
  }
  if (shared != nullptr) {
    AddElements(shared, rows * d_model, output);
  }
}

void AddComplements(const RoutedTokens& routed, const void* hidden_states, DType dtype,
                    size_t d_model, float* output) {
  const auto* source = static_cast<const uint8_t*>(hidden_states);
  constexpr size_t kBlock = 256;  // Elements widened at a time.
  float block[kBlock];
  for (size_t token = 0; token < routed.tokens(); ++token) {
    float left = 1.0f;
    for (uint32_t at = routed.token_begin[token]; at < routed.token_begin[token + 1]; ++at) {
      left -= routed.weights[at];
    }
    for (size_t begin = 0; begin < d_model; begin += kBlock) {
      const size_t count = std::min(kBlock, d_model - begin);
      const size_t at = token * d_model + begin;
      ConvertElements(dtype, source + at * BytesOf(dtype), DType::kF32, block, count);
      for (size_t i = 0; i < count; ++i) {
        output[at + i] += left * block[i];
      }
    }
  }
}

}  // namespace expertmesh
