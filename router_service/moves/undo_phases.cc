// How a move that cannot be completed is undone.
#include <utility>

#include "absl/strings/str_cat.h"
#include "router_service/moves/placement_move.h"

namespace expertmesh::moves {

void PlacementMove::Fail(absl::Status why) {
  undone_for_ = std::move(why);
  progress_.last_error = undone_for_;
  if (progress_.repair) {
    End(undone_for_);
  } else if (phase_ == MovePhase::kSwitching) {
    BeginSwitch(in_force_, MovePhase::kSwitchingBack);
  } else {
    EnterPhase(MovePhase::kUndoing);
  }
}

bool PlacementMove::StepSwitchingBack() {
  if (!confirmed_) {
    WaitFor("every router to follow the plan before", absl::InfiniteFuture());
    return false;
  }
  EnterPhase(MovePhase::kUndoing);
  return true;
}

bool PlacementMove::WasNeeded(const std::string& node_id, const ExpertKey& key) const {
  const bool planned = in_force_ != nullptr && in_force_->CopiesOf(key) != nullptr;
  return planned ? in_force_->Has(node_id, key) : established_->Has(node_id, key);
}

bool PlacementMove::StepUndoing() {
  KeysByNode let_go;
  for (const auto& [node_id, key] : loaded_) {
    const NodeTable::Node* const node = nodes_.Find(node_id);
    if (node->state.held->contains(key) && !WasNeeded(node_id, key)) {
      let_go[node_id].push_back(key);
    }
  }
  KeysByNode restore;
  for (const auto& [node_id, key] : freed_) {
    const NodeTable::Node* const node = nodes_.Find(node_id);
    if (!node->state.held->contains(key) && WasNeeded(node_id, key)) {
      restore[node_id].push_back(key);
    }
  }
  size_t without_backup = 0;
  bool waits = UnloadSome(let_go, &without_backup);
  for (const auto& [node_id, keys] : restore) {
    const NodeTable::Node* const node = nodes_.Find(node_id);
    if (!node->state.ready || given_up_.contains(node_id) || let_go.contains(node_id)) {
      continue;
    }
    if (node->call.has_value() || LoadSome(node_id, keys)) {
      waits = true;
    }
  }
  AwaitCalls();
  if (waits || nodes_.AnyCall()) {
    return false;
  }
  if (without_backup > 0 && now_ - phase_since_ < options_.patience) {
    WaitFor(absl::StrCat("copies of ", without_backup, " experts that routers use elsewhere"),
            phase_since_ + options_.patience);
    return false;
  }
  End(undone_for_);
  return false;
}

}  // namespace expertmesh::moves
