// The methods of the contract's Control but those of balancing and placement
// (balance.cc, placement.cc), one after the other:
// what each sends, and the client's types made of what it gets.
#include <optional>
#include <string>

#include "client/cpp/library/balance_codec.h"
#include "client/cpp/library/client_impl.h"
#include "client/cpp/library/watch.h"
#include "client/cpp/library/wire_millis.h"
#include "common/wire/wire_dtype.h"
#include "expertmesh/v1/control.pb.h"

namespace expertmesh::client {
namespace {

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
std::string WireTypeName(v1::Dtype dtype) {
  const std::optional<expertmesh::Dtype> known = FindWireDtype(dtype);
  return known ? std::string(WireName(*known)) : "";
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
    case v1::NODE_LINK_EJECTED:
      return Link::kEjected;
    default:
      return Link::kUnknown;
  }
}

NodeInfo ReadNode(const v1::TopologyNode& proto) {
  NodeInfo node;
  node.address = proto.address();
  node.link = LinkOf(proto.link());
  node.reason = proto.reason();
  const v1::NodeDescription& description = proto.description();
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
  node.ejections = proto.ejections();
  node.overdue_batches = proto.overdue_batches();
  node.computed_assignments = proto.computed_assignments();
  node.compute_time = absl::Microseconds(proto.compute_us());
  node.link_time_per_assignment = absl::Microseconds(proto.link_us_per_assignment());
  return node;
}

Topology ReadTopology(const v1::Topology& response) {
  Topology topology;
  topology.epoch = response.epoch();
  topology.ready = response.ready();
  topology.fingerprint = response.fingerprint();
  topology.lookup_error = response.lookup_error();
  topology.revision = response.revision();
  topology.balance = ReadSummary(response.balance());
  for (const v1::TopologyNode& node : response.nodes()) {
    topology.nodes.push_back(ReadNode(node));
  }
  for (const v1::MissingExperts& missing : response.missing()) {
    topology.missing.push_back(
        {missing.layer(), {missing.experts().begin(), missing.experts().end()}});
  }
  return topology;
}

}  // namespace

absl::StatusOr<client::Topology> Client::Topology() {
  const auto response = impl_->Ask<v1::GetTopologyResponse>("/expertmesh.v1.Control/GetTopology",
                                                            v1::GetTopologyRequest());
  if (!response.ok()) {
    return response.status();
  }
  return ReadTopology(response->topology());
}

absl::StatusOr<Load> Client::GetLoad(const LoadOptions& options) {
  v1::GetLoadRequest request;
  if (options.mesh) {
    request.set_scope(v1::LOAD_SCOPE_MESH);
  }
  request.set_window_ms(WireMillis(options.window));
  const auto response = impl_->Ask<v1::GetLoadResponse>("/expertmesh.v1.Control/GetLoad", request);
  if (!response.ok()) {
    return response.status();
  }
  Load load;
  load.epoch = response->epoch();
  load.window = absl::Milliseconds(response->window_ms());
  for (const v1::LayerLoad& layer : response->layers()) {
    load.layers.push_back({layer.layer(),
                           layer.tokens(),
                           {layer.assignments().begin(), layer.assignments().end()},
                           layer.compared_tokens(),
                           layer.changed_tokens(),
                           absl::Microseconds(layer.node_us())});
  }
  return load;
}

absl::StatusOr<NodeInfo> Client::DrainNode(const std::string& address, bool resume) {
  v1::DrainNodeRequest request;
  request.set_address(address);
  request.set_resume(resume);
  const auto response =
      impl_->Ask<v1::DrainNodeResponse>("/expertmesh.v1.Control/DrainNode", request);
  if (!response.ok()) {
    return response.status();
  }
  return ReadNode(response->node());
}

absl::Status Client::WatchTopology(const std::function<bool(const client::Topology&)>& on_change) {
  return Watch<v1::WatchTopologyResponse>(
      {&impl_->control, &impl_->retries}, "/expertmesh.v1.Control/WatchTopology",
      [](v1::WatchTopologyResponse* response) {
        ClearAges(response->mutable_topology()->mutable_balance());
      },
      [&](const v1::WatchTopologyResponse& response) {
        return on_change(ReadTopology(response.topology()));
      });
}

}  // namespace expertmesh::client
