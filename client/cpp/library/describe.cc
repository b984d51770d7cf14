// What a process says of itself: the model it serves, and its health.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <string>
#include <utility>

#include "client/cpp/library/client_impl.h"
#include "client/cpp/library/forward_codec.h"
#include "common/wire/message_codec.h"
#include "common/wire/wire_dtype.h"
#include "expertmesh/v1/router.pb.h"

namespace expertmesh::client {
namespace {

absl::StatusOr<ModelInfo> ReadModel(const v1::DescribeModelResponse& response) {
  const absl::StatusOr<expertmesh::Dtype> dtype =
      FromWire(response.activation_dtype(), "activation_dtype");
  if (!dtype.ok()) {
    return absl::InternalError(
        absl::StrCat("the router's description is not valid: ", dtype.status().message()));
  }
  if (!IsActivationDtype(*dtype)) {
    return absl::InternalError(absl::StrCat(
        "the router's description is not valid: activation_dtype is ", NameOf(*dtype)));
  }
  ModelInfo model;
  model.family = response.family();
  model.fingerprint = response.fingerprint();
  model.outline = response.outline();
  model.d_model = response.d_model();
  model.activation_dtype = FromInternal(*dtype);
  model.max_message_bytes = response.max_message_bytes();
  for (const v1::MoeLayer& layer : response.layers()) {
    model.layers.push_back({layer.layer(), layer.num_experts(), layer.experts_per_token(),
                            layer.intermediate_size(), layer.shared_intermediate_size(),
                            layer.routing()});
  }
  return model;
}

// The two messages of grpc.health.v1 by hand: a program that links this client may bring their
// .proto, and no process can hold it twice. Field 1 of the request is the service's name, field 1
// of the response an enum in which 1 is SERVING.
Frame EncodeHealthCheck(const std::string& service) {
  std::string bytes;
  if (!service.empty()) {
    google::protobuf::io::StringOutputStream output(&bytes);
    google::protobuf::io::CodedOutputStream coded(&output);
    coded.WriteTag(1 << 3 | 2);
    coded.WriteVarint32(static_cast<uint32_t>(service.size()));
    coded.WriteString(service);
  }
  return Frame(std::move(bytes));
}

absl::StatusOr<bool> DecodeHealth(const Frame& frame) {
  const std::string bytes = frame.Flatten();
  google::protobuf::io::CodedInputStream input(reinterpret_cast<const uint8_t*>(bytes.data()),
                                               static_cast<int>(bytes.size()));
  uint32_t status = 0;
  if (bytes.empty()) {
    return false;
  }
  if (input.ReadTag() != (1 << 3 | 0) || !input.ReadVarint32(&status)) {
    return absl::InternalError("the answer is no grpc.health.v1.HealthCheckResponse");
  }
  return status == 1;
}

}  // namespace

absl::StatusOr<ModelInfo> Client::DescribeModel() {
  const auto response = impl_->Ask<v1::DescribeModelResponse>("/expertmesh.v1.Router/DescribeModel",
                                                              v1::DescribeModelRequest());
  if (!response.ok()) {
    return response.status();
  }
  return ReadModel(*response);
}

absl::StatusOr<bool> Client::Health(const std::string& service) {
  const absl::StatusOr<Frame> answer =
      impl_->AskInFrames("/grpc.health.v1.Health/Check", EncodeHealthCheck(service));
  if (!answer.ok()) {
    return answer.status();
  }
  return DecodeHealth(*answer);
}

}  // namespace expertmesh::client
