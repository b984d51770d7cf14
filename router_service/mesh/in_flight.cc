#include "router_service/mesh/in_flight.h"

#include <utility>

namespace expertmesh::mesh {

void InFlight::Add(uint64_t batch_id, std::shared_ptr<NodeBatch> batch, absl::Time now) {
  rows_ += batch->rows;
  assignments_ += batch->assignments;
  entries_.emplace(batch_id, Entry{std::move(batch), now, assignments_});
}

InFlight::Entry* InFlight::Find(uint64_t batch_id) {
  const auto it = entries_.find(batch_id);
  return it == entries_.end() ? nullptr : &it->second;
}

InFlight::Entry InFlight::Take(uint64_t batch_id) {
  const auto it = entries_.find(batch_id);
  if (it == entries_.end()) {
    return {};
  }
  Entry entry = std::move(it->second);
  entries_.erase(it);
  rows_ -= entry.batch->rows;
  assignments_ -= entry.batch->assignments;
  return entry;
}

std::vector<std::shared_ptr<NodeBatch>> InFlight::TakeAll() {
  std::vector<std::shared_ptr<NodeBatch>> batches;
  for (auto& [id, entry] : entries_) {
    batches.push_back(std::move(entry.batch));
  }
  entries_.clear();
  rows_ = 0;
  assignments_ = 0;
  return batches;
}

}  // namespace expertmesh::mesh
