#include "router_service/balance/placement_policy.h"

#include "absl/strings/str_cat.h"

namespace expertmesh::balance_control {
namespace {

constexpr absl::Duration kShortestInterval = absl::Milliseconds(100);

}  // namespace

v1::PlacementPolicy ToProto(const PlacementPolicy& policy) {
  v1::PlacementPolicy proto;
  proto.set_automatic(policy.automatic);
  proto.set_interval_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(policy.interval)));
  proto.set_min_copies(policy.min_copies);
  proto.set_max_copies(policy.max_copies);
  proto.set_hysteresis(policy.hysteresis);
  proto.set_byte_budget(policy.byte_budget);
  proto.set_min_tokens(policy.min_tokens);
  return proto;
}

absl::StatusOr<PlacementPolicy> WithChange(const PlacementPolicy& policy,
                                           const v1::PlacementPolicy& change) {
  PlacementPolicy changed = policy;
  changed.automatic = change.has_automatic() ? change.automatic() : policy.automatic;
  changed.interval =
      change.has_interval_ms() ? absl::Milliseconds(change.interval_ms()) : policy.interval;
  changed.min_copies = change.has_min_copies() ? change.min_copies() : policy.min_copies;
  changed.max_copies = change.has_max_copies() ? change.max_copies() : policy.max_copies;
  changed.hysteresis = change.has_hysteresis() ? change.hysteresis() : policy.hysteresis;
  changed.byte_budget = change.has_byte_budget() ? change.byte_budget() : policy.byte_budget;
  changed.min_tokens = change.has_min_tokens() ? change.min_tokens() : policy.min_tokens;
  if (changed.interval < kShortestInterval) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy.interval_ms is ", change.interval_ms(), "; use 100 or more"));
  }
  if (!(changed.hysteresis >= 0 && changed.hysteresis <= 1)) {  // Nor NaN.
    return absl::InvalidArgumentError(
        absl::StrCat("policy.hysteresis is ", changed.hysteresis, "; use 0 to 1"));
  }
  if (changed.max_copies != 0 && changed.max_copies < changed.min_copies) {
    return absl::InvalidArgumentError(absl::StrCat("policy.max_copies is ", changed.max_copies,
                                                   "; use 0, or min_copies (", changed.min_copies,
                                                   ") or more"));
  }
  return changed;
}

}  // namespace expertmesh::balance_control
