// The batches that one node has been sent and has not answered.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_IN_FLIGHT_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_IN_FLIGHT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "router_service/mesh/node_batch.h"

namespace expertmesh::mesh {

// Not thread-safe.
class InFlight {
 public:
  struct Entry {
    std::shared_ptr<NodeBatch> batch;
    absl::Time sent;
    // Assignments in flight when it was sent, its own included.
    uint64_t assignments = 0;
    // A frame of its answer is being decoded, without the lock that guards this table.
    bool receiving = false;
    // Its answer was found to be overdue.
    bool overdue = false;
  };

  InFlight() { entries_.reserve(kUsual); }

  void Add(uint64_t batch_id, std::shared_ptr<NodeBatch> batch, absl::Time now);
  // Null when it is not there. Valid until the table changes.
  Entry* Find(uint64_t batch_id);
  // Takes it out; an entry without a batch when it is not there.
  Entry Take(uint64_t batch_id);
  std::vector<std::shared_ptr<NodeBatch>> TakeAll();

  size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  uint64_t rows() const { return rows_; }

  // By id, in no order.
  absl::flat_hash_map<uint64_t, Entry>& entries() { return entries_; }

 private:
  // That there is room for from the start.
  static constexpr size_t kUsual = 64;

  absl::flat_hash_map<uint64_t, Entry> entries_;
  uint64_t rows_ = 0;
  uint64_t assignments_ = 0;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_IN_FLIGHT_H_
