// The methods of the contract's Control that are about placement.
#include "client/cpp/library/client_impl.h"
#include "client/cpp/library/placement_codec.h"
#include "client/cpp/library/watch.h"
#include "common/base/status_macros.h"
#include "expertmesh/v1/control.pb.h"

namespace expertmesh::client {
namespace {

constexpr char kApply[] = "/expertmesh.v1.Control/ApplyPlacement";

}  // namespace

absl::StatusOr<PlacementState> Client::GetPlacement() {
  ASSIGN_OR_RETURN(const auto response,
                   impl_->Ask<v1::GetPlacementResponse>("/expertmesh.v1.Control/GetPlacement",
                                                        v1::GetPlacementRequest()));
  return ReadPlacement(response.placement());
}

absl::Status Client::WatchPlacement(const std::function<bool(const PlacementState&)>& on_change) {
  return Watch<v1::WatchPlacementResponse>(
      {&impl_->control, &impl_->retries}, "/expertmesh.v1.Control/WatchPlacement",
      [](v1::WatchPlacementResponse* response) { ClearAges(response->mutable_placement()); },
      [&](const v1::WatchPlacementResponse& response) {
        return on_change(ReadPlacement(response.placement()));
      });
}

absl::StatusOr<PlacementState> Client::SetPlacement(const PlacementChange& change) {
  v1::SetPlacementRequest request;
  *request.mutable_policy() = ToProto(change);
  ASSIGN_OR_RETURN(const auto response, impl_->Ask<v1::SetPlacementResponse>(
                                            "/expertmesh.v1.Control/SetPlacement", request));
  return ReadPlacement(response.placement());
}

absl::StatusOr<PlacementProposal> Client::PlanPlacement(const PlacementChange& change) {
  v1::PlanPlacementRequest request;
  *request.mutable_policy() = ToProto(change);
  ASSIGN_OR_RETURN(const auto response, impl_->Ask<v1::PlanPlacementResponse>(
                                            "/expertmesh.v1.Control/PlanPlacement", request));
  return ReadProposal(response.proposal());
}

// A second time it is refused because of the move that the first began; so is an abort.
absl::StatusOr<PlacementState> Client::ApplyPlacement(const std::optional<PlacementPlan>& plan) {
  v1::ApplyPlacementRequest request;
  if (plan) {
    *request.mutable_plan() = ToProto(*plan);
  }
  ASSIGN_OR_RETURN(const auto response, impl_->Ask<v1::ApplyPlacementResponse>(
                                            kApply, request, Repetition::kNotTheSame));
  return ReadPlacement(response.placement());
}

absl::StatusOr<PlacementState> Client::AbortPlacement() {
  v1::ApplyPlacementRequest request;
  request.set_abort(true);
  ASSIGN_OR_RETURN(const auto response, impl_->Ask<v1::ApplyPlacementResponse>(
                                            kApply, request, Repetition::kNotTheSame));
  return ReadPlacement(response.placement());
}

}  // namespace expertmesh::client
