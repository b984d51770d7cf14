// What changed with each epoch, for those who look later.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_EPOCH_HISTORY_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_EPOCH_HISTORY_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/mesh/mesh_view.h"

namespace expertmesh::console {

// What a view of the mesh is made of, as far as a later one is compared with it.
struct ViewFacts {
  uint64_t epoch = 0;
  // Grows from view to view.
  uint64_t revision = 0;
  // By address: how its link is ("up", "down: connection refused").
  std::map<std::string, std::string> nodes;
  // By layer: hashes of the copies in use, with their shares, and of the bias in force.
  std::map<uint32_t, uint64_t> copies;
  std::map<uint32_t, uint64_t> biases;
  uint64_t missing_experts = 0;
};

ViewFacts FactsOf(const mesh::MeshView& view, const v1::Topology& topology,
                  const std::vector<uint32_t>& layers);

struct EpochChange {
  uint64_t epoch = 0;
  // By the calendar.
  absl::Time at;
  // Each in words: "node 10.0.0.1:50061 is up", "bias of layers 1-3".
  std::vector<std::string> changes;
};

// Remembers the last kMost changes of the bias alone, and as many others: balancing, which goes on
// all the time, does not push out what happened to nodes. Thread-safe.
class EpochHistory {
 public:
  static constexpr size_t kMost = 128;
  // What follows the beginning of a change within this time is part of it.
  static constexpr absl::Duration kOneChange = absl::Seconds(1);

  // The first says nothing of what changed. Facts of an earlier view than the last are left out.
  void Observe(absl::Time at, ViewFacts facts);

  // Oldest first.
  std::vector<EpochChange> Read() const;

 private:
  struct Entry {
    uint64_t sequence = 0;
    uint64_t epoch = 0;
    absl::Time at;
    // Every step that nodes took, in order, and what the rest came to.
    std::vector<std::string> nodes;
    std::vector<std::string> rest;
    bool bias_alone = false;
  };

  // The entry that a change now belongs to; null: a new one.
  Entry* Open(absl::Time at, bool bias_alone) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  uint64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<ViewFacts> last_ ABSL_GUARDED_BY(mutex_);
  // Before the newest entry.
  ViewFacts before_ ABSL_GUARDED_BY(mutex_);
  std::deque<Entry> of_bias_ ABSL_GUARDED_BY(mutex_);
  std::deque<Entry> of_mesh_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_EPOCH_HISTORY_H_
