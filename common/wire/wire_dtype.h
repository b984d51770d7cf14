// The element types of the wire. Each is one line of the table in wire_dtype.cc, with the number
// that messages have for it and the name that flags and topologies have.
#ifndef EXPERTMESH_COMMON_WIRE_WIRE_DTYPE_H_
#define EXPERTMESH_COMMON_WIRE_WIRE_DTYPE_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tensor/dtype.h"
#include "expertmesh/v1/tensor.pb.h"

namespace expertmesh {

// Between the wire's enum and ours. DTYPE_UNSPECIFIED and unknown types give INVALID_ARGUMENT
// naming `field`. kI8Block128 is among the results: who needs an activation type asks
// IsActivationDtype.
absl::StatusOr<Dtype> FromWire(v1::Dtype dtype, absl::string_view field);
// `dtype` must be a type of the wire.
v1::Dtype ToWire(Dtype dtype);

// The same as FromWire; nothing where that gives an error.
std::optional<Dtype> FindWireDtype(v1::Dtype dtype);
// By its name: "f32", "bf16", ...
std::optional<Dtype> FindWireDtype(absl::string_view name);

// The name of a type of the wire.
absl::string_view WireName(Dtype dtype);
// All of them, for texts: "f32, bf16, ... or int8".
std::string WireNames();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_WIRE_DTYPE_H_
