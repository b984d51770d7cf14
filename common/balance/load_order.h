// The experts of a layer by their load.
#ifndef EXPERTMESH_COMMON_BALANCE_LOAD_ORDER_H_
#define EXPERTMESH_COMMON_BALANCE_LOAD_ORDER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace expertmesh::balance {

// Not thread-safe. Memory is reused.
class LoadOrder {
 public:
  // Loads are finite and not negative. Those that differ by less than float32 tells, relative to
  // the largest, count as alike.
  void Sort(absl::Span<const double> loads);

  // The largest load first, those alike by their index.
  absl::Span<const uint32_t> experts() const { return experts_; }

 private:
  std::vector<uint32_t> experts_;
  std::vector<uint64_t> keys_;
  std::vector<uint64_t> sorted_;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_LOAD_ORDER_H_
