#include "common/experts/group_by_expert.h"

#include <algorithm>

namespace expertmesh::experts {
namespace {

size_t HashOf(const PackedExpert* expert) {
  const uint64_t bits = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(expert));
  return static_cast<size_t>((bits * 0x9e3779b97f4a7c15u) >> 20);
}

}  // namespace

void GroupByExpert::Build(absl::Span<const PackedExpert* const> experts) {
  groups_.clear();
  order_.resize(experts.size());
  group_of_.resize(experts.size());
  if (++build_ == 0) {  // The counter wrapped: old entries could look current.
    std::fill(table_.begin(), table_.end(), Entry{nullptr, 0, 0});
    build_ = 1;
  }
  for (size_t a = 0; a < experts.size(); ++a) {
    group_of_[a] = GroupOf(experts[a]);
    ++groups_[group_of_[a]].count;
  }
  uint32_t begin = 0;
  for (Group& group : groups_) {
    group.begin = begin;
    begin += group.count;
    group.count = 0;
  }
  for (size_t a = 0; a < experts.size(); ++a) {
    Group& group = groups_[group_of_[a]];
    order_[group.begin + group.count++] = static_cast<uint32_t>(a);
  }
}

uint32_t GroupByExpert::GroupOf(const PackedExpert* expert) {
  if (table_.size() < 2 * (groups_.size() + 1)) {
    Grow();
  }
  const size_t mask = table_.size() - 1;
  size_t at = HashOf(expert) & mask;
  while (table_[at].build == build_) {
    if (table_[at].expert == expert) {
      return table_[at].group;
    }
    at = (at + 1) & mask;
  }
  const uint32_t group = static_cast<uint32_t>(groups_.size());
  table_[at] = {expert, group, build_};
  groups_.push_back({expert, 0, 0});
  return group;
}

void GroupByExpert::Grow() {
  table_.assign(std::max<size_t>(64, 2 * table_.size()), Entry{nullptr, 0, 0});
  const size_t mask = table_.size() - 1;
  for (size_t g = 0; g < groups_.size(); ++g) {
    size_t at = HashOf(groups_[g].expert) & mask;
    while (table_[at].build == build_) {
      at = (at + 1) & mask;
    }
    table_[at] = {groups_[g].expert, static_cast<uint32_t>(g), build_};
  }
}

}  // namespace expertmesh::experts
