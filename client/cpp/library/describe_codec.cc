#include "client/cpp/library/describe_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/library/forward_codec.h"
#include "common/wire/message_codec.h"
#include "expertmesh/v1/control.pb.h"
#include "expertmesh/v1/router.pb.h"

namespace expertmesh::client {
namespace {

template <typename Message>
absl::StatusOr<Message> Parse(const Frame& frame) {
  Message message;
  if (!message.ParseFromString(frame.Flatten())) {
    return absl::InternalError(
        absl::StrCat("the answer is no ", Message::descriptor()->full_name()));
  }
  return message;
}

const char* StateName(v1::NodeState state) {
  switch (state) {
    case v1::NODE_STATE_LOADING:
      return "loading";
    case v1::NODE_STATE_READY:
      return "ready";
    case v1::NODE_STATE_DRAINING:
      return "draining";
    case v1::NODE_STATE_FAILED:
      return "failed";
    default:
      return "";
  }
}

// As the router's flags --wire-hidden-states and --wire-partials call them.
const char* WireTypeName(v1::DType dtype) {
  switch (dtype) {
    case v1::DTYPE_F32:
      return "f32";
    case v1::DTYPE_BF16:
      return "bf16";
    case v1::DTYPE_F16:
      return "f16";
    case v1::DTYPE_INT8_BLOCK128:
      return "int8";
    default:
      return "";
  }
}

Link LinkOf(v1::NodeLink link) {
  switch (link) {
    case v1::NODE_LINK_DOWN:
      return Link::kDown;
    case v1::NODE_LINK_UP:
      return Link::kUp;
    case v1::NODE_LINK_REFUSED:
      return Link::kRefused;
    case v1::NODE_LINK_DRAINING:
      return Link::kDraining;
    default:
      return Link::kUnknown;
  }
}

NodeInfo ReadNode(const v1::TopologyNode& proto) {
  NodeInfo node;
  node.address = proto.address();
  node.link = LinkOf(proto.link());
  node.reason = proto.reason();
  const v1::DescribeResponse& description = proto.description();
  node.node_id = description.node_id();
  node.backend = description.backend();
  node.state = StateName(description.state());
  for (const v1::HostedExperts& hosted : description.hosted()) {
    node.hosted.push_back({hosted.layer(),
                           {hosted.experts().begin(), hosted.experts().end()},
                           hosted.slice_index(),
                           hosted.slice_count()});
  }
  node.weights_bytes = description.memory().weights_bytes();
  node.resident_bytes = description.memory().resident_bytes();
  node.batches_in_flight = proto.batches_in_flight();
  node.rows_in_flight = proto.rows_in_flight();
  node.disconnects = proto.disconnects();
  node.hidden_states_dtype = WireTypeName(proto.hidden_states_dtype());
  node.partials_dtype = WireTypeName(proto.partials_dtype());
  for (const v1::DamagedExperts& damaged : proto.damaged()) {
    node.damaged.push_back(
        {damaged.layer(), {damaged.experts().begin(), damaged.experts().end()}, damaged.reason()});
  }
  node.faulty_answers = proto.faulty_answers();
  node.disagreements = proto.disagreements();
  return node;
}

}  // namespace

absl::StatusOr<ModelInfo> DecodeModel(const Frame& frame) {
  const absl::StatusOr<v1::DescribeModelResponse> proto = Parse<v1::DescribeModelResponse>(frame);
  if (!proto.ok()) {
    return proto.status();
  }
  const absl::StatusOr<expertmesh::DType> dtype =
      FromWire(proto->activation_dtype(), "activation_dtype");
  if (!dtype.ok()) {
    return absl::InternalError(
        absl::StrCat("the router's description is not valid: ", dtype.status().message()));
  }
  if (!IsActivationDType(*dtype)) {
    return absl::InternalError(absl::StrCat(
        "the router's description is not valid: activation_dtype is ", NameOf(*dtype)));
  }
  ModelInfo model;
  model.family = proto->family();
  model.fingerprint = proto->fingerprint();
  model.d_model = proto->d_model();
  model.activation_dtype = FromInternal(*dtype);
  model.max_message_bytes = proto->max_message_bytes();
  for (const v1::MoeLayer& layer : proto->layers()) {
    model.layers.push_back({layer.layer(), layer.num_experts(), layer.experts_per_token(),
                            layer.intermediate_size(), layer.shared_intermediate_size(),
                            layer.routing()});
  }
  return model;
}

absl::StatusOr<Topology> DecodeTopology(const Frame& frame) {
  const absl::StatusOr<v1::GetTopologyResponse> proto = Parse<v1::GetTopologyResponse>(frame);
  if (!proto.ok()) {
    return proto.status();
  }
  Topology topology;
  topology.epoch = proto->epoch();
  topology.ready = proto->ready();
  topology.fingerprint = proto->fingerprint();
  for (const v1::TopologyNode& node : proto->nodes()) {
    topology.nodes.push_back(ReadNode(node));
  }
  for (const v1::MissingExperts& missing : proto->missing()) {
    topology.missing.push_back(
        {missing.layer(), {missing.experts().begin(), missing.experts().end()}});
  }
  return topology;
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

}  // namespace expertmesh::client
