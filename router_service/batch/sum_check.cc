#include "router_service/batch/sum_check.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace expertmesh::batch {
bool SumCheck::Before(const Assignment& a, const Assignment& b) {
  // By bits: a weight may be a NaN.
  return std::make_tuple(a.row, a.expert, std::bit_cast<uint32_t>(a.weight)) <
         std::make_tuple(b.row, b.expert, std::bit_cast<uint32_t>(b.weight));
}

absl::Status SumCheck::Run(const gate::RoutedTokens& routed, uint32_t num_experts,
                           const std::vector<mesh::ExpertReplicas>& replicas,
                           absl::Span<BatchPart* const> parts,
                           absl::FunctionRef<bool(uint32_t row)> wants) {
  wanted_.clear();
  found_.clear();
  for (uint32_t row = 0; row < routed.tokens(); ++row) {
    for (uint32_t at = routed.token_begin[row]; at < routed.token_begin[row + 1]; ++at) {
      const uint32_t expert = routed.expert_ids[at];
      for (size_t slice = 0; slice < replicas[expert].slices.size(); ++slice) {
        wanted_.push_back({row, expert, routed.weights[at]});
      }
    }
  }
  for (const BatchPart* part : parts) {
    const plan::NodePlan& plan = part->plan;
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      for (uint32_t at = plan.row_begin[i]; at < plan.row_begin[i + 1]; ++at) {
        found_.push_back({plan.rows[i], plan.expert_ids[at], plan.expert_weights[at]});
      }
    }
  }
  // The router has the rows of shared experts that no node has.
  shared_.clear();
  for (const Assignment& assignment : found_) {
    if (assignment.expert >= num_experts) {
      shared_.push_back(assignment.row);
    }
  }
  std::erase_if(found_, [&](const Assignment& found) { return found.expert >= num_experts; });
  std::sort(shared_.begin(), shared_.end());
  const auto twice = std::adjacent_find(shared_.begin(), shared_.end());
  if (twice != shared_.end() && wants(*twice)) {
    return absl::InternalError(
        absl::StrCat("shared experts of token ", *twice,
                     " would be summed more than once; the batch is not answered"));
  }
  std::sort(wanted_.begin(), wanted_.end(), &Before);
  std::sort(found_.begin(), found_.end(), &Before);
  return Compare(wants);
}

absl::Status SumCheck::Compare(absl::FunctionRef<bool(uint32_t row)> wants) {
  auto wanted = wanted_.begin();
  auto found = found_.begin();
  while (wanted != wanted_.end() || found != found_.end()) {
    const bool missing =
        found == found_.end() || (wanted != wanted_.end() && Before(*wanted, *found));
    const bool extra = !missing && (wanted == wanted_.end() || Before(*found, *wanted));
    const Assignment& odd = missing ? *wanted : *found;
    if ((missing || extra) && wants(odd.row)) {
      return absl::InternalError(absl::StrCat(
          "expert ", odd.expert, " of token ", odd.row,
          missing ? " is not in the sum" : " would be summed once more than routing says",
          "; the batch is not answered"));
    }
    wanted += extra ? 0 : 1;
    found += missing ? 0 : 1;
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::batch
