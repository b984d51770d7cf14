// What travels with a call, unary or streamed, from the server that took it to all that work for
// it. One for every call: the requests of a stream share that of the stream. Free of gRPC types.
#ifndef EXPERTMESH_COMMON_TRANSPORT_CALL_CONTEXT_H_
#define EXPERTMESH_COMMON_TRANSPORT_CALL_CONTEXT_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/time.h"

namespace expertmesh {

// Thread-safe; may outlive the call.
class CallContext {
 public:
  // What the caller told when it called.
  struct Caller {
    // When the caller stops waiting, on the clock of the process that was called. A request of a
    // stream may have an earlier deadline of its own.
    absl::Time deadline = absl::InfiniteFuture();
    // For logs, as gRPC writes it ("ipv4:10.0.0.7:41234").
    std::string peer = {};
    // W3C trace context from the metadata; empty when absent. Not checked.
    std::string traceparent = {};
    std::string tracestate = {};
    // It brings requests on a stream.
    bool streamed = false;
  };

  explicit CallContext(Caller caller) : caller_(std::move(caller)) {}

  absl::Time deadline() const { return caller_.deadline; }
  const std::string& peer() const { return caller_.peer; }
  const std::string& traceparent() const { return caller_.traceparent; }
  const std::string& tracestate() const { return caller_.tracestate; }
  bool streamed() const { return caller_.streamed; }

  // True once no answer is wanted any more: the caller has gone, its deadline has passed, or the
  // server has ended the call. May lag a little. A stream whose client has only closed its sending
  // side is not cancelled.
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  // For the server that serves the call.
  void Cancel() { cancelled_.store(true, std::memory_order_release); }

 private:
  const Caller caller_;
  std::atomic<bool> cancelled_{false};
};

// As those see it who work for the call. Never null.
using CallContextPtr = std::shared_ptr<const CallContext>;

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TRANSPORT_CALL_CONTEXT_H_
