// Which of many nodes has the lowest key, while keys change: a tournament.
#ifndef EXPERTMESH_COMMON_BALANCE_LEAST_LEVEL_TREE_H_
#define EXPERTMESH_COMMON_BALANCE_LEAST_LEVEL_TREE_H_

#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

namespace expertmesh::balance {

// Ties go to the lower index. Set() takes log2(size) steps, Least() none. Not thread-safe.
class LeastLevelTree {
 public:
  static constexpr double kOut = std::numeric_limits<double>::infinity();

  // All keys are kOut.
  void Reset(uint32_t size) {
    leaves_ = std::bit_ceil(size);
    keys_.assign(leaves_, kOut);
    winners_.resize(size_t{2} * leaves_);
    for (uint32_t i = 0; i < leaves_; ++i) {
      winners_[leaves_ + i] = i;
    }
    for (uint32_t at = leaves_ - 1; at >= 1; --at) {
      winners_[at] = winners_[size_t{2} * at];
    }
  }

  void Set(uint32_t index, double key) {
    keys_[index] = key;
    for (uint32_t at = (leaves_ + index) / 2; at >= 1; at /= 2) {
      const uint32_t left = winners_[size_t{2} * at];
      const uint32_t right = winners_[(size_t{2} * at) + 1];
      winners_[at] = keys_[left] <= keys_[right] ? left : right;
    }
  }

  // Its key is kOut when all are.
  uint32_t Least() const { return winners_[1]; }
  double key(uint32_t index) const { return keys_[index]; }

 private:
  uint32_t leaves_ = 1;
  std::vector<double> keys_;
  std::vector<uint32_t> winners_;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_LEAST_LEVEL_TREE_H_
