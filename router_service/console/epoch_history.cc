#include "router_service/console/epoch_history.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "common/base/ranges.h"

namespace expertmesh::console {
namespace {

constexpr char kBias[] = "bias of ";

absl::string_view NameOf(v1::NodeLink link) {
  switch (link) {
    case v1::NODE_LINK_DOWN:
      return "down";
    case v1::NODE_LINK_UP:
      return "up";
    case v1::NODE_LINK_REFUSED:
      return "refused";
    case v1::NODE_LINK_DRAINING:
      return "draining";
    case v1::NODE_LINK_EJECTED:
      return "ejected";
    default:
      return "unknown";
  }
}

uint64_t HashOf(const std::vector<mesh::ExpertReplicas>& experts) {
  size_t hash = experts.size();
  for (const mesh::ExpertReplicas& replicas : experts) {
    hash = absl::HashOf(hash, replicas.slices, replicas.shares);
  }
  return hash;
}

// Which of them differ: "layer 3", "layers 1-3,5"; empty where none does.
std::string ChangedLayers(const std::map<uint32_t, uint64_t>& before,
                          const std::map<uint32_t, uint64_t>& now) {
  std::vector<uint32_t> changed;
  for (const auto& [layer, hash] : now) {
    const auto it = before.find(layer);
    if (it == before.end() || it->second != hash) {
      changed.push_back(layer);
    }
  }
  return changed.empty()
             ? ""
             : absl::StrCat(changed.size() == 1 ? "layer " : "layers ", FormatRanges(changed));
}

void AddNodeChanges(const ViewFacts& before, const ViewFacts& now,
                    std::vector<std::string>* changes) {
  for (const auto& [address, link] : now.nodes) {
    const auto it = before.nodes.find(address);
    if (it == before.nodes.end() || it->second != link) {
      changes->push_back(absl::StrCat("node ", address, " is ", link));
    }
  }
  for (const auto& [address, link] : before.nodes) {
    if (!now.nodes.contains(address)) {
      changes->push_back(absl::StrCat("node ", address, " is no longer used"));
    }
  }
}

// All but the nodes.
std::vector<std::string> Rest(const ViewFacts& before, const ViewFacts& now) {
  std::vector<std::string> changes;
  if (const std::string layers = ChangedLayers(before.copies, now.copies); !layers.empty()) {
    changes.push_back(absl::StrCat("copies in use of ", layers));
  }
  if (before.missing_experts != now.missing_experts) {
    changes.push_back(now.missing_experts == 0
                          ? "no expert is without a node any more"
                          : absl::StrCat(now.missing_experts, " experts without a node"));
  }
  if (const std::string layers = ChangedLayers(before.biases, now.biases); !layers.empty()) {
    changes.push_back(absl::StrCat(kBias, layers));
  }
  return changes;
}

bool IsBiasAlone(const std::vector<std::string>& nodes, const std::vector<std::string>& rest) {
  return nodes.empty() && rest.size() == 1 && rest.front().rfind(kBias, 0) == 0;
}

}  // namespace

ViewFacts FactsOf(const mesh::MeshView& view, const v1::Topology& topology,
                  const std::vector<uint32_t>& layers) {
  ViewFacts facts;
  facts.epoch = view.epoch();
  facts.revision = view.version().revision;
  for (const v1::TopologyNode& node : topology.nodes()) {
    facts.nodes[node.address()] = absl::StrCat(
        NameOf(node.link()), node.link() == v1::NODE_LINK_UP || node.reason().empty() ? "" : ": ",
        node.link() == v1::NODE_LINK_UP ? "" : node.reason());
  }
  for (const uint32_t layer : layers) {
    if (const auto* const experts = view.placement().Layer(layer)) {
      facts.copies[layer] = HashOf(*experts);
    }
    facts.biases[layer] = absl::HashOf(view.SelectBias(layer).live);
  }
  for (const mesh::MissingExperts& missing : view.placement().missing()) {
    facts.missing_experts += missing.experts.size();
  }
  return facts;
}

EpochHistory::Entry* EpochHistory::Open(absl::Time at, bool bias_alone) {
  for (std::deque<Entry>* entries : {&of_mesh_, &of_bias_}) {
    if (!entries->empty() && entries->back().sequence == sequence_) {
      Entry& newest = entries->back();
      // A change of nodes is no part of one that was of the bias alone.
      return at - newest.at < kOneChange && (!newest.bias_alone || bias_alone) ? &newest : nullptr;
    }
  }
  return nullptr;
}

void EpochHistory::Observe(absl::Time at, ViewFacts facts) {
  const absl::MutexLock lock(&mutex_);
  if (!last_.has_value()) {
    last_ = std::move(facts);
    return;
  }
  if (facts.revision < last_->revision) {
    return;
  }
  std::vector<std::string> nodes;
  AddNodeChanges(*last_, facts, &nodes);
  std::vector<std::string> rest = Rest(*last_, facts);
  if (!nodes.empty() || !rest.empty() || facts.epoch != last_->epoch) {
    const bool bias_alone = IsBiasAlone(nodes, rest);
    Entry* entry = Open(at, bias_alone);
    if (entry == nullptr) {
      before_ = *last_;
      std::deque<Entry>& entries = bias_alone ? of_bias_ : of_mesh_;
      entry = &entries.emplace_back();
      entry->sequence = ++sequence_;
      entry->at = at;
      entry->bias_alone = bias_alone;
      if (entries.size() > kMost) {
        entries.pop_front();
      }
    }
    entry->epoch = facts.epoch;
    entry->nodes.insert(entry->nodes.end(), nodes.begin(), nodes.end());
    entry->rest = Rest(before_, facts);
  }
  last_ = std::move(facts);
}

std::vector<EpochChange> EpochHistory::Read() const {
  std::vector<Entry> entries;
  {
    const absl::MutexLock lock(&mutex_);
    std::merge(of_bias_.begin(), of_bias_.end(), of_mesh_.begin(), of_mesh_.end(),
               std::back_inserter(entries),
               [](const Entry& a, const Entry& b) { return a.sequence < b.sequence; });
  }
  std::vector<EpochChange> changes;
  changes.reserve(entries.size());
  for (Entry& entry : entries) {
    EpochChange& change = changes.emplace_back(EpochChange{entry.epoch, entry.at, {}});
    change.changes = std::move(entry.nodes);
    change.changes.insert(change.changes.end(), entry.rest.begin(), entry.rest.end());
    if (change.changes.empty()) {
      change.changes.push_back("nothing that this router sees");
    }
  }
  return changes;
}

}  // namespace expertmesh::console
