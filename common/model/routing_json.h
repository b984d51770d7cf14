// RoutingOptions as JSON: what operators write to change a model's routing (expertmesh-router
// --routing), and what DescribeModel shows. Keys are the names of the fields; capacity's fields are
// "capacity_tokens", "capacity_factor", "capacity_minimum" and "drop". Enumerations are the names
// of their values in lower case ("batch_prioritised").
#ifndef EXPERTMESH_COMMON_MODEL_ROUTING_JSON_H_
#define EXPERTMESH_COMMON_MODEL_ROUTING_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model/routing_options.h"

namespace expertmesh {

// `base` with the fields that `json`, one object, names. What belongs to a checkpoint's weights
// (num_experts, logit_bias, select_bias, apply) cannot be changed, only repeated: what RoutingJson
// wrote can be read again. Whether the result can route is for ValidateRouting to say.
//   INVALID_ARGUMENT  not an object, an unknown key (the message lists the known ones), or a value
//                     of another type.
absl::StatusOr<RoutingOptions> WithRoutingJson(const RoutingOptions& base, absl::string_view json);

// Every field, one line.
std::string RoutingJson(const RoutingOptions& options);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MODEL_ROUTING_JSON_H_
