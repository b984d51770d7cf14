// The packed weights of one batch's experts, which stay in memory for as long as it has them.
#ifndef EXPERTMESH_EXPERT_SERVICE_EXPERT_LEASE_H_
#define EXPERTMESH_EXPERT_SERVICE_EXPERT_LEASE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/experts/backend.h"

namespace expertmesh::node {

// Movable. One thread at a time.
class ExpertLease {
 public:
  bool empty() const { return experts_.empty(); }

  // Ascending.
  void Add(uint32_t expert, std::shared_ptr<const experts::PackedExpert> packed) {
    experts_.emplace_back(expert, std::move(packed));
  }

  // The expert was added.
  const experts::PackedExpert* packed(uint32_t expert) const {
    const auto found =
        std::lower_bound(experts_.begin(), experts_.end(), expert,
                         [](const auto& entry, uint32_t id) { return entry.first < id; });
    EXPERTMESH_CHECK(found != experts_.end() && found->first == expert);
    return found->second.get();
  }

  void Release() { experts_.clear(); }

 private:
  std::vector<std::pair<uint32_t, std::shared_ptr<const experts::PackedExpert>>> experts_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_EXPERT_LEASE_H_
