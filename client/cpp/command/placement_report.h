// What commands say of placement.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_PLACEMENT_REPORT_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_PLACEMENT_REPORT_H_

#include <cstdint>
#include <string>

#include "client/cpp/expertmesh/control.h"
#include "nlohmann/json_fwd.hpp"

namespace expertmesh::command {

// Lines that say how copies are planned, how far moves are, what the planner said last, and why
// nothing moves. `with_plan`: and where copies are to be, from an answer that tells it.
std::string DescribePlacement(const client::PlacementState& placement, bool with_plan);
nlohmann::json PlacementJson(const client::PlacementState& placement);

// DescribePlacement to stdout, or with `json` one object in one line.
void PrintPlacement(const client::PlacementState& placement, bool with_plan, bool json);

// Layers in a table, and the first `moves` moves in words.
std::string DescribeProposal(const client::PlacementProposal& proposal, uint64_t moves);
// Infinite levels are null.
nlohmann::json ProposalJson(const client::PlacementProposal& proposal);

// "loading: copies 3 of 9, 1.5 MiB of 4.5 MiB; waits for ...".
std::string DescribePhase(const client::PlacementMoves& moves);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_PLACEMENT_REPORT_H_
