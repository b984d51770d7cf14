// What central management needs to know of the model.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_STEERED_MODEL_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_STEERED_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/model/model_description.h"

namespace expertmesh::balance_control {

struct SteeredLayer {
  uint32_t num_experts = 0;
  // Experts per token, at most.
  uint32_t top_k = 0;
  // Parameters of one expert, and of the shared experts taken as one; 0: there are none.
  uint64_t expert_parameters = 0;
  uint64_t shared_parameters = 0;
  // Why its bias cannot be steered; empty: it can.
  std::string not_steerable;
  // [num_experts] The checkpoint's selection bias; zeros where it has none.
  std::vector<float> checkpoint_bias;
};

// Constant.
struct SteeredModel {
  // As DescribeModelResponse.outline.
  std::string outline;
  std::map<uint32_t, SteeredLayer> layers;
};

// `select_bias`: the checkpoint's, [num_experts], or empty.
SteeredLayer MakeSteeredLayer(const MoeLayerDescription& layer,
                              const std::vector<float>& select_bias);

// OK when `outline`, which is told by `peer` ("the follower", say), is the model's.
//   FAILED_PRECONDITION  naming both.
absl::Status CheckOutline(const SteeredModel& model, const std::string& outline,
                          const std::string& peer);

// The layer, if it can be steered.
//   INVALID_ARGUMENT     there is no such layer.
//   FAILED_PRECONDITION  it cannot be steered.
absl::Status CheckSteerable(const SteeredModel& model, uint32_t layer);

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_STEERED_MODEL_H_
