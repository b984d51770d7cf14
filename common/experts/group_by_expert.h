// Assignments of a batch, sorted by expert.
#ifndef EXPERTMESH_COMMON_EXPERTS_GROUP_BY_EXPERT_H_
#define EXPERTMESH_COMMON_EXPERTS_GROUP_BY_EXPERT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace expertmesh::experts {

class PackedExpert;

// A counting sort in linear time. Keeps its memory, so a batch no larger than one before allocates
// nothing. Not thread-safe.
class GroupByExpert {
 public:
  struct Group {
    const PackedExpert* expert = nullptr;
    // The group's assignments are order()[begin, begin + count).
    uint32_t begin = 0;
    uint32_t count = 0;
  };

  // Sorts `experts` (one per assignment; null is a key like any other). Results are valid until the
  // next call.
  void Build(absl::Span<const PackedExpert* const> experts);

  // One per distinct expert, in order of first appearance.
  absl::Span<const Group> groups() const { return groups_; }

  // Indices of assignments: group after group, ascending inside a group.
  absl::Span<const uint32_t> order() const { return order_; }

 private:
  struct Entry {
    const PackedExpert* expert;
    uint32_t group;
    // The entry is empty unless this is the number of the current build.
    uint32_t build;
  };

  uint32_t GroupOf(const PackedExpert* expert);
  void Grow();

  std::vector<Group> groups_;
  std::vector<uint32_t> order_;
  std::vector<uint32_t> group_of_;  // Per assignment.
  // Open addressing, linear probing, at most half full; a power of two.
  std::vector<Entry> table_;
  uint32_t build_ = 0;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_GROUP_BY_EXPERT_H_
