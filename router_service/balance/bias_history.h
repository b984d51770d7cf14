// Which bias was in force at which epoch.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_HISTORY_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_HISTORY_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "router_service/balance/decision.h"

namespace expertmesh::balance_control {

// Remembers the last kMostBiases, and no more than kMostBytes of them. Not thread-safe.
class BiasHistory {
 public:
  static constexpr size_t kMostBiases = 1024;
  static constexpr size_t kMostBytes = size_t{64} << 20;

  // In force from `epoch` on; epochs do not go back.
  void Add(uint64_t epoch, std::shared_ptr<const LayerBiases> biases);

  // `now`: the present epoch. The newest of an epoch counts.
  //   NOT_FOUND  later than `now`, or before what is remembered; says what is.
  absl::StatusOr<std::shared_ptr<const LayerBiases>> At(uint64_t epoch, uint64_t now) const;

 private:
  std::deque<std::pair<uint64_t, std::shared_ptr<const LayerBiases>>> biases_;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_HISTORY_H_
