// A mesh without threads for tests of moves: nodes that load and let go in simulated time, routers
// that take plans over one by one, failures on request; and a checker that knows only what nodes
// really hold and which plans routers really follow.
#ifndef EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_MOVES_SIM_MESH_H_
#define EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_MOVES_SIM_MESH_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "router_service/moves/placement_move.h"

namespace expertmesh::moves {

inline constexpr uint64_t kExpertBytes = 100;

class SimMesh {
 public:
  using Copy = std::pair<std::string, ExpertKey>;

  struct Load {
    absl::Time at;
    std::string node_id;
    uint64_t bytes = 0;
  };

  SimMesh(MoverOptions options, ExpertSizes sizes)
      : options_(options), move_(options, std::move(sizes)) {}

  void AddNode(const std::string& node_id, const std::vector<ExpertKey>& held,
               uint64_t limit_bytes = 0) {
    Node& node = nodes_[node_id];
    node.starts_with = {held.begin(), held.end()};
    node.held = node.starts_with;
    node.limit_bytes = limit_bytes;
  }

  PlacementMove& move() { return move_; }
  absl::Time now() const { return now_; }
  absl::Status Start(const balance::PlacementPlan& plan) {
    return move_.Start(std::make_shared<const balance::PlacementPlan>(plan), now_, States());
  }
  // All routers follow `plan` already.
  void Adopt(const balance::PlacementPlan& plan) {
    const auto shared = std::make_shared<const balance::PlacementPlan>(plan);
    followed_ = {shared};
    ASSERT_TRUE(move_.Adopt(shared).ok());
  }

  // What happens next: an answer, a router that takes a plan over, or a time to step.
  void Advance() {
    Perform(move_.Step(now_, States()));
    absl::Time next = std::min(wake_, now_ + absl::Seconds(1));
    for (const Event& event : events_) {
      next = std::min(next, event.at);
    }
    now_ = std::max(next, now_);
    for (size_t i = 0; i < events_.size();) {
      if (events_[i].at <= now_) {
        const Event event = events_[i];
        events_.erase(events_.begin() + static_cast<std::ptrdiff_t>(i));
        Execute(event);
      } else {
        ++i;
      }
    }
  }

  // Until the move has ended and nothing is left to do; false when that takes longer than `most`.
  bool Run(absl::Duration most = absl::Hours(1)) {
    const absl::Time give_up = now_ + most;
    while (now_ < give_up) {
      Advance();
      if (!outcomes.empty() && events_.empty() && move_.progress(now_).phase == MovePhase::kIdle &&
          wake_ > now_) {
        return true;
      }
    }
    return false;
  }
  // Until `reached`; false when the mesh rests before.
  template <typename Reached>
  bool RunUntil(const Reached& reached) {
    for (int i = 0; i < 100'000; ++i) {
      if (reached()) {
        return true;
      }
      Advance();
    }
    return false;
  }
  MovePhase phase() const { return move_.progress(now_).phase; }

  // It cannot be reached. With `works_on` it does what it was asked all the same, a little later.
  void Kill(const std::string& node_id, bool works_on = false) {
    nodes_.at(node_id).up = false;
    ++failures_;
    std::vector<Event> works;
    for (Event& event : events_) {
      if (event.call.has_value() && event.call->node_id == node_id && !event.silent) {
        works.push_back(event);
        works.back().silent = true;
        works.back().at = now_ + absl::Seconds(2);
        event.lost = true;
        event.at = now_;
      }
    }
    if (works_on) {
      events_.insert(events_.end(), works.begin(), works.end());
    }
  }
  // As another process, with what its flags say; or the same one that was out of reach.
  void Restart(const std::string& node_id) {
    Node& node = nodes_.at(node_id);
    node.up = true;
    ++node.instance;
    node.held = node.starts_with;
  }
  void Return(const std::string& node_id) { nodes_.at(node_id).up = true; }
  // It says what it holds, and is used where no other node can serve.
  void Drain(const std::string& node_id) { nodes_.at(node_id).drains = true; }
  // The next calls to the node get this answer, and it does nothing; or, with `does_it`, does what
  // was asked all the same.
  void AnswerNext(const std::string& node_id, int calls, const absl::Status& status,
                  bool does_it = false) {
    nodes_.at(node_id).answers.assign(static_cast<size_t>(calls), {status, does_it});
  }
  void HoldConfirmations(bool hold) { hold_confirmations_ = hold; }

  bool Holds(const std::string& node_id, const ExpertKey& key) const {
    return nodes_.at(node_id).held.contains(key);
  }
  const std::set<ExpertKey>& held(const std::string& node_id) const {
    return nodes_.at(node_id).held;
  }
  bool up(const std::string& node_id) const { return nodes_.at(node_id).up; }
  uint64_t instance(const std::string& node_id) const { return nodes_.at(node_id).instance; }
  // Plans that some router follows; null: none.
  const std::set<PlanPtr>& followed() const { return followed_; }

  // "load a 1/2,1/3", "switch", "confirm", "unload b 1/2", "end OK".
  std::vector<std::string> log;
  std::vector<Load> loads;
  std::vector<MoveOutcome> outcomes;

  absl::Duration load_time = absl::Milliseconds(5);

 private:
  struct Answer {
    absl::Status status;
    bool does_it = false;
  };
  struct Node {
    bool up = true;
    bool drains = false;
    uint64_t instance = 1;
    uint64_t limit_bytes = 0;
    std::set<ExpertKey> starts_with;
    std::set<ExpertKey> held;
    std::vector<Answer> answers;
  };
  struct Event {
    absl::Time at;
    std::optional<MoveActions::Call> call;
    uint64_t instance = 0;
    int failures_before = 0;
    bool lost = false;
    bool silent = false;  // No answer comes of it.
    std::optional<MoveActions::Switch> confirm;
  };

  static std::string Text(const std::vector<ExpertKey>& keys) {
    std::string text;
    for (const ExpertKey& key : keys) {
      absl::StrAppend(&text, text.empty() ? "" : ",", key.layer, "/", key.expert);
    }
    return text;
  }

  std::vector<NodeState> States() const {
    std::vector<NodeState> states;
    for (const auto& [node_id, node] : nodes_) {
      NodeState& state = states.emplace_back();
      state.node_id = node_id;
      state.ready = node.up && !node.drains;
      if (node.up) {
        state.instance_id = absl::StrCat(node.instance);
        state.weights_bytes = node.held.size() * kExpertBytes;
        state.limit_bytes = node.limit_bytes;
        state.held = std::make_shared<const HeldExperts>(node.held.begin(), node.held.end());
      } else {
        state.why_not = "killed";
      }
      if (node.up && node.drains) {
        state.why_not = "drains";
      }
    }
    return states;
  }

  void Perform(const MoveActions& actions) {
    wake_ = actions.wake;
    for (const MoveActions::Call& call : actions.calls) {
      const bool loads_some = call.kind == CallKind::kLoad;
      log.push_back(
          absl::StrCat(loads_some ? "load " : "unload ", call.node_id, " ", Text(call.keys)));
      EXPECT_FALSE(call.keys.empty());
      for (const Event& event : events_) {
        EXPECT_FALSE(event.call.has_value() && event.call->node_id == call.node_id &&
                     event.instance == nodes_.at(call.node_id).instance && !event.lost &&
                     !event.silent)
            << "two requests to " << call.node_id;
      }
      if (loads_some) {
        CheckLoad(call);
      } else {
        CheckUnload(call);
      }
      Event& event = events_.emplace_back();
      event.at = now_ + load_time;
      event.call = call;
      event.instance = nodes_.at(call.node_id).instance;
      event.failures_before = failures_;
    }
    if (actions.switch_to.has_value()) {
      log.push_back("switch");
      followed_.insert(actions.switch_to->plan);  // By the first router; the others lag.
      Event& event = events_.emplace_back();
      event.at = now_ + absl::Milliseconds(3);
      event.confirm = actions.switch_to;
    }
    if (actions.ended.has_value()) {
      log.push_back(absl::StrCat("end ", absl::StatusCodeToString(actions.ended->status.code()),
                                 actions.ended->repair ? " repair" : ""));
      outcomes.push_back(*actions.ended);
    }
  }

  void Execute(const Event& event) {
    if (event.confirm.has_value()) {
      if (hold_confirmations_) {
        events_.push_back(event);
        events_.back().at = now_ + absl::Milliseconds(3);
        return;
      }
      followed_ = {event.confirm->plan};
      log.push_back("confirm");
      move_.Confirm(event.confirm->id);
      return;
    }
    Node& node = nodes_.at(event.call->node_id);
    const MoveActions::Call& call = *event.call;
    if (event.silent) {
      if (node.instance == event.instance) {
        Apply(call, &node);
      }
      return;
    }
    if (event.lost || !node.up || node.instance != event.instance) {
      move_.Answer(call.id, absl::UnavailableError("the node is gone"), 0, now_);
      return;
    }
    FinishWorks(call.node_id);
    Answer answer;
    answer.does_it = true;
    if (!node.answers.empty()) {
      answer = node.answers.front();
      node.answers.erase(node.answers.begin());
    }
    if (answer.does_it) {
      if (call.kind == CallKind::kUnload && event.failures_before == failures_) {
        for (const ExpertKey& key : call.keys) {
          EXPECT_TRUE(HasOther(call.node_id, key, nullptr)) << "the last copy of " << Text({key});
        }
      }
      Apply(call, &node);
    }
    move_.Answer(call.id, answer.status, node.held.size() * kExpertBytes, now_);
  }

  static void Apply(const MoveActions::Call& call, Node* node) {
    for (const ExpertKey& key : call.keys) {
      if (call.kind == CallKind::kLoad) {
        node->held.insert(key);
      } else {
        node->held.erase(key);
      }
    }
  }
  // A node makes its changes in the order in which it was asked.
  void FinishWorks(const std::string& node_id) {
    for (Event& event : events_) {
      if (event.silent && event.call->node_id == node_id) {
        if (nodes_.at(node_id).instance == event.instance) {
          Apply(*event.call, &nodes_.at(node_id));
        }
        event.call->keys.clear();
      }
    }
  }

  // Another node that is up holds it, and is not just asked to let go of it; with `plan`, one that
  // those who follow it use.
  bool HasOther(const std::string& node_id, const ExpertKey& key, const PlanPtr& plan) const {
    return std::any_of(nodes_.begin(), nodes_.end(), [&](const auto& entry) {
      return entry.first != node_id && entry.second.up && !entry.second.drains &&
             entry.second.held.contains(key) && !Leaving(entry.first, key) &&
             (plan == nullptr || Plans(*plan, entry.first, key));
    });
  }
  bool Leaving(const std::string& node_id, const ExpertKey& key) const {
    return std::any_of(events_.begin(), events_.end(), [&](const Event& event) {
      return event.call.has_value() && !event.lost && event.call->kind == CallKind::kUnload &&
             event.call->node_id == node_id &&
             std::count(event.call->keys.begin(), event.call->keys.end(), key) > 0;
    });
  }
  // True, too, where the plan says nothing of the expert: then any copy is used.
  static bool Plans(const balance::PlacementPlan& plan, const std::string& node_id,
                    const ExpertKey& key) {
    for (const balance::LayerPlacement& layer : plan.layers) {
      if (layer.layer == key.layer && key.expert < layer.experts.size()) {
        return std::any_of(
            layer.experts[key.expert].begin(), layer.experts[key.expert].end(),
            [&](const balance::ExpertCopy& copy) { return plan.nodes[copy.node] == node_id; });
      }
    }
    return true;
  }

  void CheckUnload(const MoveActions::Call& call) const {
    for (const ExpertKey& key : call.keys) {
      EXPECT_TRUE(Holds(call.node_id, key));
      for (const PlanPtr& plan : followed_) {
        EXPECT_TRUE(HasOther(call.node_id, key, plan))
            << call.node_id << " is to let go of " << Text({key})
            << ", and some router has no other copy that is ready";
      }
    }
  }

  void CheckLoad(const MoveActions::Call& call) {
    const Node& node = nodes_.at(call.node_id);
    EXPECT_TRUE(node.up && !node.drains);
    const uint64_t bytes = call.keys.size() * kExpertBytes;
    EXPECT_TRUE(bytes <= options_.chunk_bytes || call.keys.size() == 1) << bytes;
    if (node.limit_bytes > 0) {
      std::set<ExpertKey> then = node.held;
      then.insert(call.keys.begin(), call.keys.end());
      EXPECT_LE(then.size() * kExpertBytes, node.limit_bytes) << call.node_id;
    }
    loads.push_back({now_, call.node_id, bytes});
  }

  const MoverOptions options_;
  PlacementMove move_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  absl::Time wake_ = absl::InfiniteFuture();
  std::map<std::string, Node> nodes_;
  std::vector<Event> events_;
  std::set<PlanPtr> followed_ = {nullptr};
  int failures_ = 0;
  bool hold_confirmations_ = false;
};

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_MOVES_SIM_MESH_H_
