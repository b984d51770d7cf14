// What is asked of a controller about placement.
#include <memory>
#include <utility>

#include "common/base/status_macros.h"
#include "router_service/balance/controller.h"

namespace expertmesh::balance_control {

v1::PlacementState Controller::GetPlacement(bool with_plan) const {
  v1::PlacementState state = placement_->Describe(with_plan);
  state.set_epoch(fleet_->view()->epoch());
  absl::MutexLock lock(&mutex_);
  *state.mutable_policy() = ToProto(decision_.placement);
  if (with_plan && follower_ != nullptr && decision_.plan != nullptr) {
    *state.mutable_plan() = ToProto(*decision_.plan);
  }
  return state;
}

absl::StatusOr<v1::PlacementState> Controller::SetPlacement(
    const v1::SetPlacementRequest& request) {
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(CheckDecides());
    ASSIGN_OR_RETURN(decision_.placement, WithChange(decision_.placement, request.policy()));
    Decide();
  }
  AwaitPublished();
  return GetPlacement(/*with_plan=*/false);
}

absl::StatusOr<Controller::PlanningBasis> Controller::BasisWith(
    const v1::PlacementPolicy& change) const {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CheckDecides());
  PlanningBasis basis;
  ASSIGN_OR_RETURN(basis.policy, WithChange(decision_.placement, change));
  basis.loads = loads_.Last(kLongWindow).counts;
  return basis;
}

absl::StatusOr<v1::PlacementProposal> Controller::PlanPlacement(
    const v1::PlanPlacementRequest& request) {
  ASSIGN_OR_RETURN(const PlanningBasis basis, BasisWith(request.policy()));
  return placement_->Propose(basis.loads, basis.policy);
}

absl::StatusOr<v1::PlacementState> Controller::ApplyPlacement(
    const v1::ApplyPlacementRequest& request) {
  ASSIGN_OR_RETURN(const PlanningBasis basis, BasisWith({}));
  if (request.abort()) {
    RETURN_IF_ERROR(placement_->Abort());
    return GetPlacement(/*with_plan=*/false);
  }
  moves::PlanPtr plan;
  if (request.has_plan()) {
    ASSIGN_OR_RETURN(balance::PlacementPlan given, PlanFromProto(model_, request.plan()));
    plan = std::make_shared<const balance::PlacementPlan>(std::move(given));
  }
  RETURN_IF_ERROR(placement_->Apply(std::move(plan), basis.loads, basis.policy));
  return GetPlacement(/*with_plan=*/false);
}

}  // namespace expertmesh::balance_control
