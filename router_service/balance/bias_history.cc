#include "router_service/balance/bias_history.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/wire/error_reason.h"

namespace expertmesh::balance_control {
namespace {

size_t BytesOf(const LayerBiases& biases) {
  size_t bytes = 1;
  for (const auto& [layer, values] : biases) {
    bytes += values.size() * sizeof(float);
  }
  return bytes;
}

}  // namespace

void BiasHistory::Add(uint64_t epoch, std::shared_ptr<const LayerBiases> biases) {
  const size_t most = std::min(kMostBiases, std::max<size_t>(kMostBytes / BytesOf(*biases), 2));
  biases_.emplace_back(epoch, std::move(biases));
  while (biases_.size() > most) {
    biases_.pop_front();
  }
}

absl::StatusOr<std::shared_ptr<const LayerBiases>> BiasHistory::At(uint64_t epoch,
                                                                   uint64_t now) const {
  if (epoch <= now) {
    for (auto it = biases_.rbegin(); it != biases_.rend(); ++it) {
      if (it->first <= epoch) {
        return it->second;
      }
    }
  }
  const uint64_t oldest = biases_.empty() ? now : biases_.front().first;
  return ErrorOf(v1::ERROR_REASON_EPOCH_UNKNOWN,
                 absl::StrCat("epoch ", epoch, " is not remembered; ", oldest, " to ", now, " are"),
                 {{"epoch", absl::StrCat(epoch)},
                  {"oldest", absl::StrCat(oldest)},
                  {"newest", absl::StrCat(now)}});
}

}  // namespace expertmesh::balance_control
