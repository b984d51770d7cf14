// The bias of a model in a file of JSON: {"outline": ..., "epoch": ..., "layers": [{"layer": ...,
// "values": [...]}, ...]}.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_BIAS_FILE_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_BIAS_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/expertmesh/control.h"

namespace expertmesh::command {

// The file is whole or not there, and has every bit of the values.
absl::Status WriteBias(const std::string& path, const client::Bias& bias);

// Errors name the file and the place in it.
//   NOT_FOUND         there is no such file.
//   INVALID_ARGUMENT  it holds no bias: it is cut off, of another kind, or has values that are no
//                     finite numbers, or a layer twice.
absl::StatusOr<client::Bias> ReadBias(const std::string& path);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_BIAS_FILE_H_
