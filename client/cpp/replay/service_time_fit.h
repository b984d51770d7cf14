// Service times of a mesh, taken from a recording of it.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_SERVICE_TIME_FIT_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_SERVICE_TIME_FIT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "client/cpp/replay/mesh_model.h"

namespace expertmesh::replay {

struct ServiceTimeFit {
  ServiceTimes times;
  // Batches that it was made from.
  uint64_t batches = 0;
  // Half of the batches took a time that differs by less, as a share of what they took.
  double median_error = 0;
};

// The times, none below 0, that explain best how long the batches of the recording NAME (and
// NAME.1) took: the least sum of absolute relative errors, so that medians are met and batches
// which something else held up count little. `mesh` is the one that was recorded: nodes, first
// placement, parallel_nodes; its times are not looked at. Batches of one size and one routing do
// not tell the times apart; they still fit such batches. Errors are those of RoutingRecordReader,
// and
//   INVALID_ARGUMENT     experts have several copies: which of them a batch used is not recorded.
//   FAILED_PRECONDITION  fewer than 100 batches have a duration.
absl::StatusOr<ServiceTimeFit> FitServiceTimes(const std::string& name, const MeshModel& mesh);

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_SERVICE_TIME_FIT_H_
