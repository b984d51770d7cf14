// Which points of the space of routing options can route.
#ifndef EXPERTMESH_COMMON_GATE_VALIDATE_ROUTING_H_
#define EXPERTMESH_COMMON_GATE_VALIDATE_ROUTING_H_

#include "absl/status/status.h"
#include "common/model/routing_options.h"

namespace expertmesh::gate {

// INVALID_ARGUMENT naming the option, its value and what it must be, for values out of range and
// for options that contradict each other. RouteTokens may be called with options that passed.
absl::Status ValidateRouting(const RoutingOptions& options);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_VALIDATE_ROUTING_H_
