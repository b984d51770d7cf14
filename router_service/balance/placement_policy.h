// How copies of experts are planned.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_PLACEMENT_POLICY_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_PLACEMENT_POLICY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "expertmesh/v1/placement.pb.h"

namespace expertmesh::balance_control {

// As the message, which says what each means.
struct PlacementPolicy {
  bool automatic = false;
  absl::Duration interval = absl::Minutes(1);
  uint32_t min_copies = 0;
  uint32_t max_copies = 0;
  double hysteresis = 0.05;
  uint64_t byte_budget = 0;
  uint64_t min_tokens = 1024;

  friend bool operator==(const PlacementPolicy&, const PlacementPolicy&) = default;
};

v1::PlacementPolicy ToProto(const PlacementPolicy& policy);
// `policy` with what `change` says. INVALID_ARGUMENT naming what is no possible value.
absl::StatusOr<PlacementPolicy> WithChange(const PlacementPolicy& policy,
                                           const v1::PlacementPolicy& change);

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_PLACEMENT_POLICY_H_
