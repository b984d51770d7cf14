// How a move goes when all is well: loading, following the plan, letting go.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "router_service/moves/placement_move.h"

namespace expertmesh::moves {

PlacementMove::KeysByNode PlacementMove::Missing(const CompiledPlan& plan) const {
  KeysByNode missing;
  for (const std::string& node_id : plan.plan()->nodes) {
    for (const ExpertKey& key : plan.On(node_id)) {
      if (!nodes_.Holds(node_id, key)) {
        missing[node_id].push_back(key);
      }
    }
  }
  return missing;
}

PlacementMove::KeysByNode PlacementMove::Extra() const {
  KeysByNode extra;
  for (const auto& [node_id, node] : nodes_.nodes()) {
    if (!node.state.ready || !target_->HasNode(node_id)) {
      continue;
    }
    std::vector<ExpertKey> keys;
    for (const ExpertKey& key : *node.state.held) {
      if (target_->HasLayer(key.layer) && !target_->Has(node_id, key) &&
          !(in_force_ != nullptr && in_force_->Has(node_id, key))) {
        keys.push_back(key);
      }
    }
    if (!keys.empty()) {
      std::sort(keys.begin(), keys.end());
      extra[node_id] = std::move(keys);
    }
  }
  return extra;
}

bool PlacementMove::HasBackup(const std::string& node_id, const ExpertKey& key) const {
  const std::vector<NamedCopy>* copies = in_force_ == nullptr ? nullptr : in_force_->CopiesOf(key);
  copies = copies == nullptr ? established_->CopiesOf(key) : copies;
  return copies != nullptr &&
         std::any_of(copies->begin(), copies->end(), [&](const NamedCopy& copy) {
           return copy.node_id != node_id && nodes_.HasCopy(copy.node_id, key);
         });
}

bool PlacementMove::AllReady(const ExpertKey& key, const std::vector<NamedCopy>& copies) const {
  return std::all_of(copies.begin(), copies.end(),
                     [&](const NamedCopy& copy) { return nodes_.HasCopy(copy.node_id, key); });
}

CompiledPlanPtr PlacementMove::AsFarAsLoaded() const {
  CompiledPlan::Copies copies;
  for (const auto& [key, wanted] : target_->copies()) {
    const std::vector<NamedCopy>* before =
        in_force_ == nullptr ? nullptr : in_force_->CopiesOf(key);
    before = before == nullptr ? established_->CopiesOf(key) : before;
    copies[key] = before == nullptr || AllReady(key, wanted) ? wanted : *before;
  }
  return CompiledPlan::FromCopies(std::move(copies));
}

void PlacementMove::CountLoaded(const KeysByNode& missing) {
  uint64_t copies = 0;
  uint64_t bytes = 0;
  for (const auto& [node_id, keys] : missing) {
    copies += keys.size();
    for (const ExpertKey& key : keys) {
      bytes += nodes_.BytesOf(node_id, key);
    }
  }
  progress_.copies_all = std::max(progress_.copies_all, copies);
  progress_.bytes_all = std::max(progress_.bytes_all, bytes);
  progress_.copies_done = progress_.copies_all - copies;
  progress_.bytes_done = progress_.bytes_all - bytes;
}

bool PlacementMove::AwaitNode(const std::string& node_id) {
  const NodeTable::Node* const node = nodes_.Find(node_id);
  const absl::Time since =
      std::max(progress_.started, node == nullptr ? absl::InfinitePast() : node->away_since);
  if (now_ - since >= options_.patience) {
    return false;
  }
  WaitFor(absl::StrCat("node ", node_id, " to be ready",
                       node == nullptr || node->state.why_not.empty() ? "" : ": ",
                       node == nullptr ? "" : node->state.why_not),
          since + options_.patience);
  return true;
}

void PlacementMove::Send(const std::string& node_id, CallKind kind, std::vector<ExpertKey> keys) {
  for (const ExpertKey& key : keys) {
    const Copy copy{node_id, key};
    if (kind == CallKind::kLoad) {
      loaded_.insert(copy);
    } else {
      ++progress_.copies_unloaded;
    }
  }
  MoveActions::Call call;
  call.kind = kind;
  call.node_id = node_id;
  call.keys = keys;
  call.id = nodes_.Begin(node_id, kind, std::move(keys), now_);
  actions_.calls.push_back(std::move(call));
}

bool PlacementMove::LoadSome(const std::string& node_id, const std::vector<ExpertKey>& keys) {
  if (const absl::Time at = nodes_.LoadableAt(node_id); at > now_) {
    WaitFor(absl::StrCat("node ", node_id, ": its turn to load"), at);
    return true;
  }
  const uint64_t free = nodes_.FreeBytes(node_id);
  std::vector<ExpertKey> chunk;
  uint64_t bytes = 0;
  for (const ExpertKey& key : keys) {
    // One that it holds, and was asked to let go of, perhaps in vain, takes no more.
    const bool held = nodes_.Find(node_id)->state.held->contains(key);
    const uint64_t more = held ? 0 : nodes_.BytesOf(node_id, key);
    const bool full = !chunk.empty() && (bytes + more > options_.chunk_bytes ||
                                         chunk.size() >= options_.chunk_experts);
    if (full || more > free - bytes) {
      break;
    }
    chunk.push_back(key);
    bytes += more;
  }
  if (chunk.empty()) {
    return FreeSome(node_id, nodes_.BytesOf(node_id, keys.front()));
  }
  Send(node_id, CallKind::kLoad, std::move(chunk));
  return true;
}

bool PlacementMove::FreeSome(const std::string& node_id, uint64_t bytes) {
  if (phase_ != MovePhase::kLoading) {
    return false;
  }
  const NodeTable::Node& node = *nodes_.Find(node_id);
  std::vector<ExpertKey> candidates;
  for (const ExpertKey& key : *node.state.held) {
    if (target_->HasLayer(key.layer) && !target_->Has(node_id, key) && HasBackup(node_id, key)) {
      candidates.push_back(key);
    }
  }
  std::sort(candidates.begin(), candidates.end());
  const uint64_t free = nodes_.FreeBytes(node_id);
  const uint64_t wanted = std::max(bytes, options_.chunk_bytes);
  std::vector<ExpertKey> leaving;
  uint64_t freed = 0;
  for (const ExpertKey& key : candidates) {
    if (free + freed >= wanted || leaving.size() >= options_.chunk_experts) {
      break;
    }
    leaving.push_back(key);
    freed += nodes_.BytesOf(node_id, key);
  }
  if (free + freed < bytes) {
    return false;
  }
  for (const ExpertKey& key : leaving) {
    freed_.emplace(node_id, key);
  }
  Send(node_id, CallKind::kUnload, std::move(leaving));
  return true;
}

bool PlacementMove::StepLoading() {
  const KeysByNode missing = Missing(*target_);
  CountLoaded(missing);
  std::string without_room;
  bool waits = false;
  for (const auto& [node_id, keys] : missing) {
    const NodeTable::Node* const node = nodes_.Find(node_id);
    if (node == nullptr || !node->state.ready) {
      if (!progress_.repair && !AwaitNode(node_id)) {
        failure_ = absl::UnavailableError(absl::StrCat(
            "node ", node_id, " is not ready for ", absl::FormatDuration(options_.patience),
            node == nullptr ? "" : ": ", node == nullptr ? "" : node->state.why_not));
        return true;
      }
      waits = waits || !progress_.repair;
    } else if (!node->call.has_value() && !LoadSome(node_id, keys)) {
      without_room = node_id;
    } else {
      waits = true;
    }
  }
  AwaitCalls();
  if (waits || nodes_.AnyCall()) {
    return false;
  }
  if (!without_room.empty()) {
    return MakeRoomFor(without_room);
  }
  if (progress_.repair) {
    EnterPhase(MovePhase::kUnloading);
  } else {
    BeginSwitch(target_, MovePhase::kSwitching);
  }
  return true;
}

void PlacementMove::AwaitCalls() {
  for (const auto& [node_id, node] : nodes_.nodes()) {
    if (node.call.has_value()) {
      const bool loads = node.call->kind == CallKind::kLoad;
      WaitFor(absl::StrCat("node ", node_id, loads ? " to load " : " to let go of ",
                           node.call->keys.size(), " experts"),
              node.call->answered.has_value() ? *node.call->answered + options_.patience
                                              : absl::InfiniteFuture());
    }
  }
}

bool PlacementMove::MakeRoomFor(const std::string& node_id) {
  CompiledPlanPtr partial = AsFarAsLoaded();
  const CompiledPlan& before = in_force_ == nullptr ? *established_ : *in_force_;
  if (!progress_.repair && partial->copies() != before.copies()) {
    BeginSwitch(std::move(partial), MovePhase::kSwitching);
    return true;
  }
  failure_ = absl::ResourceExhaustedError(absl::StrCat(
      "node ", node_id, " has ", nodes_.FreeBytes(node_id), " bytes free of its limit of ",
      nodes_.Find(node_id)->state.limit_bytes,
      ", and nothing on it has another copy that routers use; raise its --memory-limit-bytes, or "
      "plan in smaller steps"));
  return true;
}

bool PlacementMove::StepSwitching() {
  if (!confirmed_) {
    WaitFor("every router to follow the plan", absl::InfiniteFuture());
    return false;
  }
  in_force_ = switching_to_;
  EnterPhase(MovePhase::kUnloading);
  return true;
}

bool PlacementMove::UnloadSome(const KeysByNode& keys, size_t* without_backup) {
  bool waits = false;
  for (const auto& [node_id, wanted] : keys) {
    const NodeTable::Node* const node = nodes_.Find(node_id);
    if (node == nullptr || !node->state.ready || given_up_.contains(node_id)) {
      continue;
    }
    if (node->call.has_value()) {
      waits = true;
      continue;
    }
    std::vector<ExpertKey> leaving;
    for (const ExpertKey& key : wanted) {
      if (HasBackup(node_id, key)) {
        leaving.push_back(key);
      } else {
        ++*without_backup;
      }
    }
    if (leaving.empty()) {
      continue;
    }
    waits = true;
    if (node->not_before > now_) {
      WaitFor(absl::StrCat("the next attempt on node ", node_id), node->not_before);
      continue;
    }
    leaving.resize(std::min(leaving.size(), options_.chunk_experts));
    Send(node_id, CallKind::kUnload, std::move(leaving));
  }
  return waits;
}

bool PlacementMove::StepUnloading() {
  size_t without_backup = 0;
  const bool waits = UnloadSome(Extra(), &without_backup);
  AwaitCalls();
  if (waits || nodes_.AnyCall()) {
    return false;
  }
  if (!progress_.repair && in_force_ != target_) {
    EnterPhase(MovePhase::kLoading);
    return true;
  }
  if (without_backup > 0 && now_ - phase_since_ < options_.patience) {
    WaitFor(absl::StrCat("copies of ", without_backup, " experts that the plan has elsewhere"),
            phase_since_ + options_.patience);
    return false;
  }
  End(absl::OkStatus());
  return false;
}

}  // namespace expertmesh::moves
