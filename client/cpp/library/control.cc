// The methods of the contract's Control, one after the other: what each sends, and the client's
// types made of what it gets.
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/cpp/library/client_impl.h"
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
  return node;
}

Topology ReadTopology(const v1::Topology& response) {
  Topology topology;
  topology.epoch = response.epoch();
  topology.ready = response.ready();
  topology.fingerprint = response.fingerprint();
  topology.lookup_error = response.lookup_error();
  for (const v1::TopologyNode& node : response.nodes()) {
    topology.nodes.push_back(ReadNode(node));
  }
  for (const v1::MissingExperts& missing : response.missing()) {
    topology.missing.push_back(
        {missing.layer(), {missing.experts().begin(), missing.experts().end()}});
  }
  return topology;
}

// Messages of a server-streaming call, handed from network threads to one that waits.
class Inbox {
 public:
  void Put(Frame frame) {
    absl::MutexLock lock(&mutex_);
    frames_.push_back(std::move(frame));
  }
  void Close(const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    closed_ = why;
  }
  // The next message, or how the call ended. OK and nothing never comes.
  absl::StatusOr<Frame> Next() {
    absl::MutexLock lock(&mutex_);
    const auto something = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !frames_.empty() || closed_.has_value();
    };
    mutex_.Await(absl::Condition(&something));
    if (frames_.empty()) {
      return closed_->ok() ? absl::UnavailableError("the router ended the stream") : *closed_;
    }
    Frame frame = std::move(frames_.front());
    frames_.pop_front();
    return frame;
  }

 private:
  absl::Mutex mutex_;
  std::deque<Frame> frames_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
};

// One call of WatchTopology: `on_frame` gets each of its messages, on this thread, until it gives
// an error. Returns that, or how the call ended.
absl::Status FollowTopology(net::GrpcClient* client,
                            const std::function<absl::Status(const Frame&)>& on_frame) {
  const auto inbox = std::make_shared<Inbox>();
  net::StreamCallbacks callbacks;
  callbacks.on_frame = [inbox](Frame frame) { inbox->Put(std::move(frame)); };
  callbacks.on_closed = [inbox](const absl::Status& why) { inbox->Close(why); };
  const std::shared_ptr<net::ClientStream> stream =
      client->OpenStream("/expertmesh.v1.Control/WatchTopology", {}, std::move(callbacks));
  absl::Status status = stream->Send(Frame());
  stream->CloseSend();
  while (status.ok()) {
    const absl::StatusOr<Frame> frame = inbox->Next();
    status = frame.ok() ? on_frame(*frame) : frame.status();
  }
  stream->Cancel();
  return status;
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

absl::StatusOr<Load> Client::GetLoad() {
  const auto response =
      impl_->Ask<v1::GetLoadResponse>("/expertmesh.v1.Control/GetLoad", v1::GetLoadRequest());
  if (!response.ok()) {
    return response.status();
  }
  Load load;
  load.epoch = response->epoch();
  for (const v1::LayerLoad& layer : response->layers()) {
    load.layers.push_back(
        {layer.layer(), layer.tokens(), {layer.assignments().begin(), layer.assignments().end()}});
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
  std::string last;
  uint32_t failures = 0;
  for (;;) {
    std::optional<absl::Status> result;  // For good, whatever becomes of the call.
    const absl::Status end = FollowTopology(&impl_->control, [&](const Frame& frame) {
      failures = 0;
      std::string bytes = frame.Flatten();
      if (bytes == last) {
        return absl::OkStatus();  // A heartbeat.
      }
      const auto response = Parse<v1::WatchTopologyResponse>(frame);
      last = std::move(bytes);
      if (!response.ok()) {
        result = response.status();
      } else if (!on_change(ReadTopology(response->topology()))) {
        result = absl::OkStatus();
      }
      return result.has_value() ? absl::CancelledError("enough") : absl::OkStatus();
    });
    if (result.has_value()) {
      return *result;
    }
    const std::optional<absl::Duration> pause = impl_->retries.After(end, ++failures);
    if (!pause.has_value()) {
      return end;
    }
    absl::SleepFor(*pause);
  }
}

}  // namespace expertmesh::client
