// Methods that stream to their caller what a test says.
#ifndef EXPERTMESH_TESTS_SUPPORT_SCRIPTED_WATCH_H_
#define EXPERTMESH_TESTS_SUPPORT_SCRIPTED_WATCH_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/grpc_server.h"
#include "common/net/watch_method.h"

namespace expertmesh::net {

// `script` runs on a network thread when the request is there; the stream ends with its answer.
using WatchScript = std::function<absl::Status(ServerStreamSink& sink)>;

class ScriptedWatchHandler final : public StreamHandler {
 public:
  ScriptedWatchHandler(WatchScript script, std::shared_ptr<ServerStreamSink> sink)
      : script_(std::move(script)), sink_(std::move(sink)) {}
  void OnFrame(Frame) override {
    if (const absl::Status status = script_(*sink_); !status.ok()) {
      sink_->Fail(status);
    }
    sink_ = nullptr;
  }

 private:
  const WatchScript script_;
  std::shared_ptr<ServerStreamSink> sink_;
};

inline RawStreamMethod ScriptedWatch(std::string name, WatchScript script) {
  return {std::move(name), [script = std::move(script)](std::shared_ptr<ServerStreamSink> sink,
                                                        const CallContextPtr&) {
            return std::make_unique<ScriptedWatchHandler>(script, std::move(sink));
          }};
}

// A watch of a state that does not change.
inline WatchMethod UnchangedWatch(std::string name) {
  return {
      .name = std::move(name),
      .heartbeat = [](const Frame&) -> absl::StatusOr<absl::Duration> { return absl::Hours(1); },
      .read = [] { return WatchedState(); },
      .subscribe = [](const std::function<void()>&) { return nullptr; }};
}

// False once the caller has gone.
template <typename Response>
bool SendMessage(ServerStreamSink& sink, const Response& response) {
  return sink.Send(Frame(response.SerializeAsString())).ok();
}

}  // namespace expertmesh::net

#endif  // EXPERTMESH_TESTS_SUPPORT_SCRIPTED_WATCH_H_
