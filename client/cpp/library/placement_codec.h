// The client's types of placement, and the contract's.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_PLACEMENT_CODEC_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_PLACEMENT_CODEC_H_

#include "client/cpp/expertmesh/control.h"
#include "expertmesh/v1/placement.pb.h"

namespace expertmesh::client {

PlacementState ReadPlacement(const v1::PlacementState& proto);
PlacementProposal ReadProposal(const v1::PlacementProposal& proto);

v1::PlacementPolicy ToProto(const PlacementChange& change);
v1::PlacementPlan ToProto(const PlacementPlan& plan);

// Ages grow, and speeds fall, while nothing happens.
void ClearAges(v1::PlacementState* placement);

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_PLACEMENT_CODEC_H_
