// All that an authority decides, on its way between routers and to disk.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_DECISION_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_DECISION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/balance/bias_policy.h"
#include "common/balance/placement_plan.h"
#include "expertmesh/internal/v1/authority.pb.h"
#include "expertmesh/v1/balance.pb.h"
#include "expertmesh/v1/placement.pb.h"
#include "router_service/balance/load_counts.h"
#include "router_service/balance/steered_model.h"

namespace expertmesh::balance_control {

struct LayerDecision {
  balance::BiasPolicy policy;
  // [num_experts]
  std::vector<float> bias;
};

struct Decision {
  uint64_t term = 0;
  uint64_t epoch = 0;
  std::string authority_id;
  // Every layer that can be steered.
  std::map<uint32_t, LayerDecision> layers;
  // Null: every copy that nodes offer is used.
  std::shared_ptr<const balance::PlacementPlan> plan;
};

// By layer, [num_experts]; every layer that can be steered.
using LayerBiases = std::map<uint32_t, std::vector<float>>;
LayerBiases BiasesOf(const Decision& decision);

// The checkpoint's biases, and `policy` for all.
Decision InitialDecision(const SteeredModel& model, const balance::BiasPolicy& policy);

internal::v1::Decision ToProto(const SteeredModel& model, const Decision& decision);

// What came from a peer or a file; `from` names it in errors.
//   FAILED_PRECONDITION  it is for another model.
//   INVALID_ARGUMENT     layers, sizes or values that do not fit the model, or are no numbers.
absl::StatusOr<Decision> FromProto(const SteeredModel& model, const internal::v1::Decision& proto,
                                   const std::string& from);

v1::BalancePolicy ToProto(const balance::BiasPolicy& policy);
// `policy` with what `change` says. INVALID_ARGUMENT when that is no possible policy.
absl::StatusOr<balance::BiasPolicy> WithChange(const balance::BiasPolicy& policy,
                                               const v1::BalancePolicy& change);

// INVALID_ARGUMENT naming `layer` when `values` are no bias for so many experts.
absl::Status CheckBias(uint32_t layer, const SteeredLayer& steered, absl::Span<const float> values);

internal::v1::LayerCounts ToProto(uint32_t layer, const LayerCounts& counts);
// INVALID_ARGUMENT when they do not fit the model.
absl::StatusOr<LoadCounts> CountsFromProto(const SteeredModel& model,
                                           const internal::v1::ReportLoadRequest& proto);

v1::PlacementPlan ToProto(const balance::PlacementPlan& plan);
// INVALID_ARGUMENT naming what is wrong: unknown layers, other numbers of experts, copies of one
// expert on one node, nodes that are not listed, shares that are no shares.
absl::StatusOr<balance::PlacementPlan> PlanFromProto(const SteeredModel& model,
                                                     const v1::PlacementPlan& proto);

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_DECISION_H_
