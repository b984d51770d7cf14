#include "router_service/plan/share_accounts.h"

#include <algorithm>

namespace expertmesh::plan {

bool HasShares(const mesh::ExpertReplicas& replicas) {
  if (replicas.slices.size() != 1 || replicas.shares.size() != 1) {
    return false;
  }
  const std::vector<float>& shares = replicas.shares.front();
  return shares.size() > 1 && shares.size() == replicas.slices.front().size() &&
         std::any_of(shares.begin(), shares.end(), [](float share) { return share > 0; });
}

absl::Span<float> ShareAccounts::Of(uint32_t layer,
                                    const std::vector<mesh::ExpertReplicas>& replicas,
                                    uint32_t expert) {
  if (layers_.size() <= layer) {
    layers_.resize(size_t{layer} + 1);
  }
  Layer& accounts = layers_[layer];
  const size_t count = replicas[expert].shares.front().size();
  if (accounts.begin.size() != replicas.size() + 1 ||
      accounts.begin[expert + 1] - accounts.begin[expert] != count) {
    accounts.begin.assign(1, 0);
    for (const mesh::ExpertReplicas& one : replicas) {
      accounts.begin.push_back(
          accounts.begin.back() +
          static_cast<uint32_t>(HasShares(one) ? one.shares.front().size() : 0));
    }
    accounts.owed.assign(accounts.begin.back(), 0);
  }
  return absl::MakeSpan(accounts.owed).subspan(accounts.begin[expert], count);
}

absl::Span<float> ShareAccounts::Owe(uint32_t layer,
                                     const std::vector<mesh::ExpertReplicas>& replicas,
                                     uint32_t expert, float rows) {
  const std::vector<float>& shares = replicas[expert].shares.front();
  const absl::Span<float> owed = Of(layer, replicas, expert);
  float sum = 0;
  float all_shares = 0;
  for (size_t i = 0; i < owed.size(); ++i) {
    owed[i] = shares[i] > 0 ? owed[i] : 0;  // As another placement left it.
    sum += owed[i];
    all_shares += shares[i];
  }
  // The sum is 0 but for that, and for rounding, which would grow.
  for (size_t i = 0; i < owed.size(); ++i) {
    owed[i] += (rows - sum) * shares[i] / all_shares;
  }
  return owed;
}

size_t ShareAccounts::MemoryBytes() const {
  size_t bytes = layers_.capacity() * sizeof(Layer);
  for (const Layer& layer : layers_) {
    bytes += (layer.begin.capacity() * sizeof(uint32_t)) + (layer.owed.capacity() * sizeof(float));
  }
  return bytes;
}

}  // namespace expertmesh::plan
