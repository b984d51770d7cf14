// What routers say of themselves, from the contract's messages to the client's types.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_DESCRIBE_CODEC_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_DESCRIBE_CODEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/cpp/expertmesh/client.h"
#include "common/wire/frame.h"

namespace expertmesh::client {

// INTERNAL when the frame is no such message.
absl::StatusOr<ModelInfo> DecodeModel(const Frame& frame);
absl::StatusOr<Topology> DecodeTopology(const Frame& frame);

// grpc.health.v1.HealthCheckRequest, and whether a HealthCheckResponse says SERVING.
Frame EncodeHealthCheck(const std::string& service);
absl::StatusOr<bool> DecodeHealth(const Frame& frame);

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_DESCRIBE_CODEC_H_
