#include "router_service/moves/node_table.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_context.h"
#include "common/wire/error_reason.h"

namespace expertmesh::moves {
namespace {

absl::Duration TimeFor(uint64_t bytes, uint64_t bytes_per_second) {
  return bytes_per_second == 0
             ? absl::ZeroDuration()
             : absl::Seconds(static_cast<double>(bytes) / static_cast<double>(bytes_per_second));
}

bool LostOnTheWay(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status) || ReasonOf(status) == v1::ERROR_REASON_QUEUE_FULL;
}

}  // namespace

NodeTable::NodeTable(MoverOptions options, ExpertSizes sizes)
    : options_(options), sizes_(std::move(sizes)) {}

std::vector<Verdict> NodeTable::Refresh(absl::Time now, const std::vector<NodeState>& states) {
  absl::flat_hash_set<std::string> seen;
  for (const NodeState& state : states) {
    // Where two have one name, the first is meant, as in a placement.
    if (!state.node_id.empty() && seen.insert(state.node_id).second) {
      Update(&nodes_[state.node_id], state, now);
    }
  }
  std::vector<Verdict> failed;
  for (auto& [node_id, node] : nodes_) {
    if (!seen.contains(node_id)) {
      NodeState gone;
      gone.node_id = node_id;
      gone.why_not = "no node of the mesh has this name now";
      Update(&node, gone, now);
    }
    Verdict verdict = Settle(&node, now);
    if (verdict.kind != Verdict::Kind::kOk) {
      failed.push_back(std::move(verdict));
    }
  }
  return failed;
}

void NodeTable::Update(Node* node, const NodeState& state, absl::Time now) {
  if (!state.instance_id.empty() && node->state.instance_id != state.instance_id) {
    node->call.reset();  // With the process that it was for.
    node->leaving.clear();
    node->failures = 0;
    node->weights_at_most = std::numeric_limits<uint64_t>::max();
  }
  if (state.ready) {
    node->away_since = absl::InfiniteFuture();
  } else if (node->away_since == absl::InfiniteFuture()) {
    node->away_since = now;
  }
  if (node->state.held != state.held || node->state.other_units != state.other_units) {
    node->held_units = state.other_units;
    for (const ExpertKey& key : *state.held) {
      const auto size = sizes_.find(key.layer);
      node->held_units += size == sizes_.end() ? 0 : size->second;
    }
  }
  std::string instance_id = std::move(node->state.instance_id);
  node->state = state;
  if (state.instance_id.empty()) {
    node->state.instance_id = std::move(instance_id);
  }
  absl::erase_if(node->leaving, [&state](const ExpertKey& key) {
    return state.ready && !state.held->contains(key);
  });
}

Verdict NodeTable::Settle(Node* node, absl::Time now) {
  if (!node->call.has_value() || !node->call->answered.has_value()) {
    return {};
  }
  if (!node->state.ready) {
    node->call.reset();  // When it is back, it says what it holds.
    return {};
  }
  const NodeCall& call = *node->call;
  const bool wanted = call.kind == CallKind::kLoad;
  const bool agrees = std::all_of(call.keys.begin(), call.keys.end(), [&](const ExpertKey& key) {
    return node->state.held->contains(key) == wanted;
  });
  if (agrees) {
    for (const ExpertKey& key : call.keys) {
      node->leaving.erase(key);
    }
    node->call.reset();
    node->failures = 0;
    return {};
  }
  if (now - *call.answered < options_.patience) {
    return {};
  }
  Verdict verdict{Verdict::Kind::kFailed, call.kind, node->state.node_id,
                  absl::FailedPreconditionError(absl::StrCat(
                      "node ", node->state.node_id, " answered that it ",
                      wanted ? "loaded" : "let go of", " ", call.keys.size(),
                      " experts, and does not say so in what it offers; see its log, and whether "
                      "its weights are damaged"))};
  node->call.reset();
  return verdict;
}

const NodeTable::Node* NodeTable::Find(const std::string& node_id) const {
  const auto found = nodes_.find(node_id);
  return found == nodes_.end() ? nullptr : &found->second;
}

bool NodeTable::Ready(const std::string& node_id) const {
  const Node* const node = Find(node_id);
  return node != nullptr && node->state.ready;
}

bool NodeTable::Holds(const std::string& node_id, const ExpertKey& key) const {
  const Node* const node = Find(node_id);
  return node != nullptr && node->state.held->contains(key) && !node->leaving.contains(key);
}

bool NodeTable::HasCopy(const std::string& node_id, const ExpertKey& key) const {
  return Ready(node_id) && Holds(node_id, key);
}

bool NodeTable::AnyCall() const {
  return std::any_of(nodes_.begin(), nodes_.end(),
                     [](const auto& entry) { return entry.second.call.has_value(); });
}

double NodeTable::UnitBytes(const Node& node) const {
  if (node.held_units > 0 && node.state.weights_bytes > 0) {
    return static_cast<double>(node.state.weights_bytes) / static_cast<double>(node.held_units);
  }
  double bytes = 0;
  double units = 0;
  for (const auto& [node_id, other] : nodes_) {
    bytes += other.held_units > 0 ? static_cast<double>(other.state.weights_bytes) : 0.0;
    units += static_cast<double>(other.held_units);
  }
  return units > 0 && bytes > 0 ? bytes / units : 1.0;
}

uint64_t NodeTable::BytesOf(const std::string& node_id, const ExpertKey& key) const {
  const Node* const node = Find(node_id);
  const auto size = sizes_.find(key.layer);
  if (node == nullptr || size == sizes_.end()) {
    return 1;
  }
  const double bytes = std::ceil(static_cast<double>(size->second) * UnitBytes(*node));
  return std::max<uint64_t>(static_cast<uint64_t>(bytes), 1);
}

uint64_t NodeTable::OtherBytes(const std::string& node_id) const {
  const Node* const node = Find(node_id);
  return node == nullptr ? 0
                         : static_cast<uint64_t>(static_cast<double>(node->state.other_units) *
                                                 UnitBytes(*node));
}

uint64_t NodeTable::FreeBytes(const std::string& node_id) const {
  const Node* const node = Find(node_id);
  if (node == nullptr || node->state.limit_bytes == 0) {
    return std::numeric_limits<uint64_t>::max();
  }
  const uint64_t held = std::min(node->state.weights_bytes, node->weights_at_most);
  return node->state.limit_bytes - std::min(node->state.limit_bytes, held);
}

absl::Time NodeTable::LoadableAt(const std::string& node_id) const {
  const Node* const node = Find(node_id);
  return node == nullptr ? pace_ : std::max({pace_, node->pace, node->not_before});
}

uint64_t NodeTable::Begin(const std::string& node_id, CallKind kind, std::vector<ExpertKey> keys,
                          absl::Time now) {
  Node& node = nodes_.at(node_id);
  EXPERTMESH_CHECK(!node.call.has_value());
  NodeCall call;
  call.id = next_call_++;
  call.kind = kind;
  for (const ExpertKey& key : keys) {
    call.bytes += BytesOf(node_id, key);
  }
  if (kind == CallKind::kLoad) {
    pace_ = std::max(pace_, now) + TimeFor(call.bytes, options_.bytes_per_second);
    node.pace = std::max(node.pace, now) + TimeFor(call.bytes, options_.node_bytes_per_second);
  } else {
    node.leaving.insert(keys.begin(), keys.end());
  }
  node.weights_at_most = std::numeric_limits<uint64_t>::max();
  call.keys = std::move(keys);
  node.call = std::move(call);
  return node.call->id;
}

Verdict NodeTable::Answer(uint64_t call_id, const absl::Status& status, uint64_t weights_bytes,
                          absl::Time now) {
  const auto found = std::find_if(nodes_.begin(), nodes_.end(), [call_id](const auto& entry) {
    return entry.second.call.has_value() && entry.second.call->id == call_id;
  });
  if (found == nodes_.end()) {
    return {};  // No longer of interest.
  }
  Node& node = found->second;
  Verdict verdict{Verdict::Kind::kOk, node.call->kind, found->first, absl::OkStatus()};
  if (status.ok()) {
    node.call->answered = now;
    if (node.call->kind == CallKind::kUnload) {
      node.weights_at_most = weights_bytes;
    }
    return verdict;
  }
  verdict.status = WithContext(absl::StrCat("node ", found->first), status);
  if (LostOnTheWay(status)) {
    verdict.kind =
        ++node.failures > options_.most_failures ? Verdict::Kind::kFailed : Verdict::Kind::kAgain;
  } else {
    verdict.kind = ReasonOf(status) == v1::ERROR_REASON_TERM_PASSED ? Verdict::Kind::kFenced
                                                                    : Verdict::Kind::kFailed;
  }
  node.not_before = now + options_.retry_delay * std::max(node.failures, 1);
  if (verdict.kind == Verdict::Kind::kFailed) {
    node.failures = 0;
  }
  node.call.reset();
  return verdict;
}

void NodeTable::Forget() {
  for (auto& [node_id, node] : nodes_) {
    node.call.reset();
    node.failures = 0;
    node.not_before = absl::InfinitePast();
  }
}

}  // namespace expertmesh::moves
