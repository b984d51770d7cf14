// What a process does with extensions that it has no use for.
#ifndef EXPERTMESH_COMMON_WIRE_EXTENSIONS_H_
#define EXPERTMESH_COMMON_WIRE_EXTENSIONS_H_

#include <string>

#include "absl/status/status.h"
#include "expertmesh/v1/tensor.pb.h"
#include "google/protobuf/map.h"

namespace expertmesh {

// INVALID_ARGUMENT names one of `extensions`, if there are any: an answer that left them out would
// look like one that heeded them.
absl::Status RefuseExtensions(const google::protobuf::Map<std::string, v1::Extension>& extensions);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_EXTENSIONS_H_
