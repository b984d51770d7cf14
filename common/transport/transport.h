// The seam between router and node: frames, free of gRPC types.
//
// Router side: Transport::Connect(address, observer) returns a NodeConnection at once and keeps
// trying for as long as it lives. A connection is *up* from the first OnStatus until
// OnDisconnected, then it reconnects by itself. While up, Send() queues ComputeRequest frames and
// OnFrame() brings ComputeResponse frames; frames keep their order in each direction. A frame that
// was queued when the connection goes down is lost: who sent it learns that from OnDisconnected,
// never from silence.
//
// Node side: a server (gRPC or in-process) hands each compute stream that a router opens to
// NodeEndpoint::OpenCompute and feeds its frames to the StreamHandler it gets back.
//
// Implementations: common/net/grpc_transport.h (ships), in_process_transport.h (tests), and the
// decorator faulty_transport.h (seeded faults). All pass
// tests/unit/common/transport/transport_conformance.h.
#ifndef EXPERTMESH_COMMON_TRANSPORT_TRANSPORT_H_
#define EXPERTMESH_COMMON_TRANSPORT_TRANSPORT_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/wire/frame.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh {

// What the router hears from one node. Calls for one connection come one after the other, from
// transport threads; they must not block and must not destroy the connection.
class NodeObserver {
 public:
  virtual ~NodeObserver() = default;

  // The first call after connecting carries `description`; the compute stream is open by then.
  virtual void OnStatus(const internal::v1::WatchStatusResponse& status) = 0;

  // An encoded ComputeResponse. Only while up.
  virtual void OnFrame(Frame frame) = 0;

  // The connection went down, or (when not up) an attempt failed. `why` is not OK. Also called when
  // nothing, not even a heartbeat, has been heard for the heartbeat timeout.
  virtual void OnDisconnected(const absl::Status& why) = 0;
};

using LoadDone = absl::AnyInvocable<void(absl::StatusOr<internal::v1::LoadExpertsResponse>)>;
using UnloadDone = absl::AnyInvocable<void(absl::StatusOr<internal::v1::UnloadExpertsResponse>)>;

// Thread-safe.
class NodeConnection {
 public:
  // Closes the connection; waits for a running callback. No callback runs afterwards.
  virtual ~NodeConnection() = default;

  // Queues one encoded ComputeRequest; never blocks.
  //   UNAVAILABLE         not up.
  //   RESOURCE_EXHAUSTED  more than the window is queued already; send less, or elsewhere.
  //   INVALID_ARGUMENT    the frame is larger than the transport's frame limit.
  virtual absl::Status Send(Frame frame) = 0;

  // Bytes queued and not yet handed to the network.
  virtual size_t QueuedBytes() const = 0;

  // No frame is awaited until the next Send. The transport may then ask the node for nothing more
  // until that, or until the node's next status, whichever is first: frames that come meanwhile
  // wait, and a connection that is lost for frames alone is noticed that much later.
  virtual void PauseReading() = 0;

  // Asks the node to load experts, or to let them go, beside the frames and never in their way.
  // `done` runs exactly once, never from within the call, on a thread of the transport; it must not
  // block and must not destroy the connection. Besides the node's own errors:
  //   UNAVAILABLE        not up; or the connection went down or was destroyed before the answer.
  //   DEADLINE_EXCEEDED  no answer within `timeout`, in real time.
  // After these the node may or may not do what was asked: its next status tells.
  virtual void LoadExperts(const internal::v1::LoadExpertsRequest& request, absl::Duration timeout,
                           LoadDone done) = 0;
  virtual void UnloadExperts(const internal::v1::UnloadExpertsRequest& request,
                             absl::Duration timeout, UnloadDone done) = 0;
};

// Thread-safe; outlives its connections.
class Transport {
 public:
  virtual ~Transport() = default;

  // `observer` must outlive the connection. Never fails: an address that makes no sense is reported
  // through OnDisconnected, with INVALID_ARGUMENT.
  virtual std::unique_ptr<NodeConnection> Connect(std::string address, NodeObserver* observer) = 0;

  // Since when, on the clock of the transport, the threads that bring frames have run without a
  // pause: now while they do not run, InfinitePast when they never paused. Silence of a node counts
  // from there: what came before may not have been read yet.
  virtual absl::Time AwakeSince() const { return absl::InfinitePast(); }
};

// The way back to the peer of one stream. Thread-safe; may outlive the stream.
class FrameSink {
 public:
  virtual ~FrameSink() = default;

  // Queues one encoded answer; never blocks. UNAVAILABLE once the stream is gone: the answer is
  // no longer wanted.
  virtual absl::Status Send(Frame frame) = 0;

  // True once Send gives UNAVAILABLE for good: what is still to be computed for this stream may be
  // dropped. May lag, but not for ever; a peer that has only closed its sending side is not gone.
  virtual bool IsGone() const = 0;
};

// A server's end of one bidirectional stream of frames. OnFrame calls come one after the other and
// must not block. Destroyed when no more frames can come: the peer has closed its side, the stream
// is gone, or the server shuts down. Answers can still be sent while the stream lasts, which is
// until the last reference to its sink is dropped: keep one for each request that is worked on.
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  virtual void OnFrame(Frame frame) = 0;
};

// Stops the callbacks of NodeEndpoint::Subscribe when destroyed (waits for a running one).
class StatusSubscription {
 public:
  virtual ~StatusSubscription() = default;
};

// What a node offers, whichever transport carries it. Thread-safe.
class NodeEndpoint {
 public:
  virtual ~NodeEndpoint() = default;

  virtual v1::NodeDescription Describe() const = 0;

  // The current status, `description` included.
  virtual internal::v1::WatchStatusResponse Status() const = 0;

  // Calls `on_change` after every change of state or of what is held (not for load alone). The
  // callback must not block nor call back into the endpoint.
  virtual std::unique_ptr<StatusSubscription> Subscribe(std::function<void()> on_change) = 0;

  virtual std::unique_ptr<StreamHandler> OpenCompute(std::shared_ptr<FrameSink> replies) = 0;

  // May take long; for threads that may block.
  virtual absl::StatusOr<internal::v1::LoadExpertsResponse> LoadExperts(
      const internal::v1::LoadExpertsRequest& request) = 0;
  virtual absl::StatusOr<internal::v1::UnloadExpertsResponse> UnloadExperts(
      const internal::v1::UnloadExpertsRequest& request) = 0;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TRANSPORT_TRANSPORT_H_
