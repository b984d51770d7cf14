// A transport to nodes that say what the test says, and answer nothing.
#ifndef EXPERTMESH_TESTS_SUPPORT_SCRIPTED_NODES_H_
#define EXPERTMESH_TESTS_SUPPORT_SCRIPTED_NODES_H_

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/transport/transport.h"

namespace expertmesh {

// Thread-safe. Addresses that are spoken of are connected to already.
class ScriptedNodes final : public Transport {
 public:
  std::unique_ptr<NodeConnection> Connect(std::string address, NodeObserver* observer) override {
    absl::MutexLock lock(&mutex_);
    observers_[std::move(address)] = observer;
    return std::make_unique<Connection>();
  }

  // The node is up, and is this now.
  void Say(const std::string& address, const v1::NodeDescription& description) {
    internal::v1::WatchStatusResponse status;
    status.set_state(description.state());
    *status.mutable_description() = description;
    Observer(address)->OnStatus(status);
  }
  void Lose(const std::string& address) {
    Observer(address)->OnDisconnected(absl::UnavailableError("the test says so"));
  }

 private:
  struct Connection final : NodeConnection {
    absl::Status Send(Frame) override { return absl::OkStatus(); }
    size_t QueuedBytes() const override { return 0; }
    void PauseReading() override {}
    void LoadExperts(const internal::v1::LoadExpertsRequest&, absl::Duration, LoadDone) override {}
    void UnloadExperts(const internal::v1::UnloadExpertsRequest&, absl::Duration,
                       UnloadDone) override {}
  };

  NodeObserver* Observer(const std::string& address) {
    absl::MutexLock lock(&mutex_);
    return observers_.at(address);
  }

  absl::Mutex mutex_;
  std::map<std::string, NodeObserver*> observers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_SCRIPTED_NODES_H_
