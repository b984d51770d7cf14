// Records the routing of live batches in a file, beside the requests.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_ROUTING_RECORDER_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_ROUTING_RECORDER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/balance/routing_record.h"
#include "common/gate/routed_tokens.h"

namespace expertmesh::balance_control {

// Thread-safe. One thread of its own writes; what comes faster than it writes is left out, and
// counted.
class RoutingRecorder {
 public:
  // Batches that wait to be written, in bytes of their ids.
  static constexpr size_t kMostWaiting = size_t{8} << 20;

  // A batch that is over.
  struct Batch {
    uint32_t layer = 0;
    uint64_t epoch = 0;
    absl::Duration duration;
    // What the slowest node computed.
    uint64_t node_us = 0;
  };

  // As RoutingRecordWriter::Create. `calendar`: the time of day; from any thread.
  static absl::StatusOr<std::unique_ptr<RoutingRecorder>> Create(
      const std::string& name, balance::RecordedModel model, uint64_t max_bytes,
      std::function<absl::Time()> calendar);
  // Writes what waits.
  ~RoutingRecorder();
  RoutingRecorder(const RoutingRecorder&) = delete;
  RoutingRecorder& operator=(const RoutingRecorder&) = delete;

  // Copies. Layers that are not recorded are left out.
  void Add(const Batch& batch, const gate::RoutedTokens& routed);

  uint64_t recorded() const { return recorded_.load(std::memory_order_relaxed); }
  // For want of room, or since the file could not be written.
  uint64_t left_out() const { return left_out_.load(std::memory_order_relaxed); }

 private:
  RoutingRecorder(std::unique_ptr<balance::RoutingRecordWriter> writer,
                  std::function<absl::Time()> calendar);

  void Run();

  const std::unique_ptr<balance::RoutingRecordWriter> writer_;  // The thread alone uses it.
  const std::function<absl::Time()> calendar_;
  std::map<uint32_t, uint32_t> top_k_;  // By layer.
  std::atomic<uint64_t> recorded_{0};
  std::atomic<uint64_t> left_out_{0};

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<balance::RecordedBatch> waiting_ ABSL_GUARDED_BY(mutex_);
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;

  std::thread thread_;  // Last: starts when all else is there.
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_ROUTING_RECORDER_H_
