#include "router_service/mesh/weight_trust.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace expertmesh::mesh {
namespace {

template <typename Copies>
size_t CountOf(const Copies& copies, uint64_t digest) {
  return static_cast<size_t>(std::count_if(
      copies.begin(), copies.end(), [digest](const auto& copy) { return copy.digest == digest; }));
}

}  // namespace

WeightTrust::Copies WeightTrust::Collect(absl::Span<const NodeHoldings> nodes,
                                         std::vector<std::string>* silent) const {
  Copies copies;
  for (const NodeHoldings& node : nodes) {
    bool is_silent = false;
    for (const v1::HostedExperts* entry : node.hosted) {
      const MoeLayerDescription* layer = model_->FindLayer(entry->layer());
      if (layer == nullptr) {
        continue;
      }
      const auto possible = [&](uint32_t expert) { return IsPossible(*entry, expert, *layer); };
      if (entry->digests_size() != entry->experts_size()) {
        is_silent =
            is_silent || std::any_of(entry->experts().begin(), entry->experts().end(), possible);
        continue;
      }
      for (int i = 0; i < entry->experts_size(); ++i) {
        if (possible(entry->experts(i))) {
          const checkpoint::ExpertSliceId id = {
              entry->layer(), entry->experts(i), {entry->slice_index(), entry->slice_count()}};
          copies[id].push_back({&node, entry->digests(i)});
        }
      }
    }
    if (is_silent) {
      silent->push_back(node.address);
    }
  }
  return copies;
}

uint64_t WeightTrust::Choose(const std::vector<Copy>& copies, std::optional<uint64_t> in_use) {
  for (const Copy& copy : copies) {
    if (2 * CountOf(copies, copy.digest) > copies.size()) {
      return copy.digest;
    }
  }
  if (in_use && CountOf(copies, *in_use) > 0) {
    return *in_use;
  }
  return copies.front().digest;
}

std::string WeightTrust::Reason(const Knowledge& known, const std::vector<Copy>& copies,
                                uint64_t chosen) {
  if (known.checkpoint) {
    return "the weights are not those of this router's checkpoint";
  }
  std::vector<std::string> others;
  for (const Copy& copy : copies) {
    if (copy.digest == chosen) {
      others.push_back(copy.holder->address);
    }
  }
  return absl::StrCat(
      "the weights are not those of ", absl::StrJoin(others, ", "),
      !known.asked ? "; this router's checkpoint is being asked which are right"
      : 2 * others.size() > copies.size()
          ? ", which are more than half, and this router's checkpoint cannot be read"
          : ", in use before, and neither this router's checkpoint nor a majority tells which are "
            "right");
}

WeightTrust::Verdict WeightTrust::Judge(absl::Span<const NodeHoldings> nodes) {
  Verdict verdict;
  const Copies all = Collect(nodes, &verdict.silent);
  for (const auto& [id, copies] : all) {
    Knowledge& known = known_[id];
    const bool differ = CountOf(copies, copies.front().digest) < copies.size();
    const uint64_t chosen = known.checkpoint ? *known.checkpoint : Choose(copies, known.in_use);
    known.in_use = chosen;
    known.disputed = differ;
    if (!known.asked) {
      (differ ? verdict.disputed : verdict.unverified).push_back(id);
    }
    for (const Copy& copy : copies) {
      if (copy.digest != chosen) {
        verdict.damaged.push_back(
            {copy.holder->node, id.layer, id.expert, Reason(known, copies, chosen)});
      }
    }
  }
  std::sort(verdict.disputed.begin(), verdict.disputed.end());
  std::sort(verdict.unverified.begin(), verdict.unverified.end());
  std::sort(verdict.damaged.begin(), verdict.damaged.end(),
            [](const DamagedExpert& a, const DamagedExpert& b) {
              return std::tie(a.node, a.layer, a.expert) < std::tie(b.node, b.layer, b.expert);
            });
  return verdict;
}

bool WeightTrust::Learn(const checkpoint::ExpertSliceId& id, std::optional<uint64_t> digest) {
  Knowledge& known = known_[id];
  known.asked = true;
  known.checkpoint = digest;
  return known.disputed || (digest && known.in_use && *digest != *known.in_use);
}

}  // namespace expertmesh::mesh
