// What operators ask a router for, through Client in client.h: nodes and what they hold, load, and
// how that is balanced. Plain values; a router that is too old to tell leaves a field empty.
#ifndef EXPERTMESH_CLIENT_CONTROL_H_
#define EXPERTMESH_CLIENT_CONTROL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace expertmesh::client {

// Experts of one layer.
struct ExpertSet {
  uint32_t layer = 0;
  // Ascending.
  std::vector<uint32_t> experts;
  // Which part of the intermediate dimension a node holds; 0 of 1: whole experts.
  uint32_t slice_index = 0;
  uint32_t slice_count = 1;
};

// Experts of one layer that a node holds and the router does not use there: their weights are not
// those of the model.
struct DamagedExperts {
  uint32_t layer = 0;
  // Ascending.
  std::vector<uint32_t> experts;
  // What the weights differ from.
  std::string reason;
};

enum class Link { kUnknown, kDown, kUp, kRefused, kDraining, kEjected };

struct NodeInfo {
  std::string address;
  Link link = Link::kUnknown;
  // Why the link is not up.
  std::string reason;
  // What the node said of itself; empty before the first contact.
  std::string node_id;
  std::string backend;
  // "loading", "ready", "draining" or "failed".
  std::string state;
  std::vector<ExpertSet> hosted;
  uint64_t weights_bytes = 0;
  uint64_t resident_bytes = 0;
  // Sent by the router and not answered yet.
  uint32_t batches_in_flight = 0;
  uint64_t rows_in_flight = 0;
  // Times the link went down since the router started.
  uint64_t disconnects = 0;
  // Types of rows on their way there and back, as --wire-hidden-states calls them; empty: not told.
  std::string hidden_states_dtype;
  std::string partials_dtype;
  // Ascending by layer.
  std::vector<DamagedExperts> damaged;
  // Answers that the router did not use, since they were wrong.
  uint64_t faulty_answers = 0;
  // Cross-checks in which another node computed different values of the same row.
  uint64_t disagreements = 0;
  uint64_t ejections = 0;
  // Batches whose answers did not come in time.
  uint64_t overdue_batches = 0;
  // Assignments that it has computed for the router, and how long that took by its own clock.
  uint64_t computed_assignments = 0;
  absl::Duration compute_time;
  // What the way there and back adds to each assignment; zero: nothing that is certain.
  absl::Duration link_time_per_assignment;
};

// What a router is to the others of its mesh.
enum class BalanceRole { kUnknown, kAuthority, kFollower };

// Who decides on bias and placement, and whether that is alive.
struct BalanceSummary {
  BalanceRole role = BalanceRole::kUnknown;
  // host:port of the router that a follower follows.
  std::string authority;
  // Grows whenever an authority starts; of two the one with the higher term is right.
  uint64_t term = 0;
  bool alive = false;
  // What is wrong; empty when `alive`.
  std::string reason;
  // Since bias or placement changed last by a decision; unset: not since the router started.
  std::optional<absl::Duration> since_change;
  // Since an authority looked at its policies, or a follower heard the authority; unset: never.
  std::optional<absl::Duration> since_tick;
};

struct Topology {
  // Version of bias and placement, the same on all routers of a mesh.
  uint64_t epoch = 0;
  // Every expert has a ready node.
  bool ready = false;
  std::string fingerprint;
  // In the order in which partials are summed.
  std::vector<NodeInfo> nodes;
  std::vector<ExpertSet> missing;
  // Why a name of the router's --nodes cannot be looked up; empty: all is well.
  std::string lookup_error;
  // Grows with every change of what this router sees or decides; each router counts its own.
  uint64_t revision = 0;
  BalanceSummary balance;
};

// Whose load, and since when.
struct LoadOptions {
  // All routers that report to this one, and its own; else its own alone.
  bool mesh = false;
  // Zero: since the router started (the mesh: since counting began). Else of about so much time: 1
  // s, 10 s and 5 min are kept, and the shortest that covers it is taken.
  absl::Duration window = absl::ZeroDuration();
};

struct LayerLoad {
  uint32_t layer = 0;
  uint64_t tokens = 0;
  // [num_experts] Assignments that each expert received.
  std::vector<uint64_t> assignments;
  // Tokens whose experts were chosen with another bias than the checkpoint's, and how many of these
  // went to another set of experts than with that.
  uint64_t compared_tokens = 0;
  uint64_t changed_tokens = 0;
  // Time that all nodes together computed for the layer, by their clocks.
  absl::Duration node_time;
};

struct Load {
  uint64_t epoch = 0;
  // How much time was counted; zero: since the start.
  absl::Duration window;
  // Ascending by layer.
  std::vector<LayerLoad> layers;
};

// kFrozen: the bias stays what it is. kSign: bias += rate * sign(mean load - load).
// kProportional: bias += rate * (mean load - load) / mean load.
enum class BalanceRule { kUnknown, kFrozen, kSign, kProportional };

// How the bias of a layer follows its load.
struct BalancePolicy {
  BalanceRule rule = BalanceRule::kUnknown;
  // What a step adds, in units of scores.
  float rate = 0;
  // No expert's bias is further from the checkpoint's.
  float clamp = 0;
  // Share of the distance to the checkpoint's bias that each step takes back, 0 to 1.
  float decay = 0;
  // Share of tokens that may go to another set of experts than the checkpoint alone would choose,
  // 0 to 1; 1: no bound.
  float quality_budget = 0;
  // Tokens of the layer that a step is made of, at least.
  uint64_t step_tokens = 0;
  bool paused = false;
};

// How evenly a layer's experts are used; common/balance/measures.h has the formulas. Of no load:
// what a balanced layer has.
struct LayerMeasures {
  // MaxVio(batch): the mean over the router's batches since it started.
  double batch_max_violation = 0;
  // Coefficient of variation of the load, and its square.
  double load_variation = 0;
  double load_loss = 0;
  // 1 when balanced, 0 when one expert gets all.
  double load_entropy = 0;
  // (1 / num_experts) * sum of squared shares of the load.
  double mean_squared_share = 0;
  uint32_t dead_experts = 0;
  // "dead: experts 0-2", say; empty: no collapse.
  std::string collapse;
  // Rows that the measures below were taken of; 0: they are not known.
  uint64_t sampled_tokens = 0;
  // Losses of Switch Transformer (all slots counted), GShard (first choices), Megatron-Core and
  // DeepSeek-V3 (the sample as the sequence).
  double switch_loss = 0;
  double gshard_loss = 0;
  double megatron_loss = 0;
  double sequence_loss = 0;
  // Square of the coefficient of variation of the weights that experts were given.
  double importance_loss = 0;
  // Mean of logsumexp(logits)^2.
  double z_loss = 0;
  // Mesh TensorFlow's loss of second choices; 0: the router is too old to tell it.
  double second_place_loss = 0;
};

struct LayerBalance {
  uint32_t layer = 0;
  BalancePolicy policy;
  // What the last step came to: "frozen", "stepped", "held by the quality budget", ...
  std::string outcome;
  // Why the layer has no bias to steer; empty: it can be steered.
  std::string not_steerable;
  bool at_checkpoint = false;
  // Largest distance of an expert's bias to the checkpoint's.
  float bias_distance = 0;
  // In the last 10 s, on all routers: as LayerLoad, and (largest load - mean) / mean.
  uint64_t tokens = 0;
  double max_violation = 0;
  uint64_t compared_tokens = 0;
  uint64_t changed_tokens = 0;
  // More of the same 10 s; unset: not told.
  std::optional<LayerMeasures> measures;
};

// A router whose counts an authority has.
struct ReportingRouter {
  std::string router_id;
  // It is the one that was asked.
  bool self = false;
  uint64_t tokens = 0;
  // Since its last report.
  absl::Duration age;
  // That it said it serves on.
  uint64_t epoch = 0;
  // Known from before the authority started, or silent for long: 10 s, or ten of its reports.
  bool gone = false;
};

struct Balance {
  BalanceSummary summary;
  uint64_t epoch = 0;
  // Ascending by layer.
  std::vector<LayerBalance> layers;
  // Told by an authority: itself, and those that report to it.
  std::vector<ReportingRouter> routers;
};

// What Client::SetBalance changes; what is unset stays as it is. Ranges as in BalancePolicy.
struct BalanceChange {
  // Empty: all layers that can be steered.
  std::vector<uint32_t> layers;
  std::optional<BalanceRule> rule;
  std::optional<float> rate;
  std::optional<float> clamp;
  std::optional<float> decay;
  std::optional<float> quality_budget;
  // 1 or more.
  std::optional<uint64_t> step_tokens;
  std::optional<bool> paused;
  // Their bias becomes the checkpoint's first.
  bool reset_bias = false;
};

struct LayerBias {
  uint32_t layer = 0;
  // [num_experts] Added to scores for selection only, the checkpoint's own included. Finite.
  std::vector<float> values;
};

struct Bias {
  // Not read by Client::SetBias.
  uint64_t epoch = 0;
  // ModelInfo::outline of the model that it is for; to set one, empty: whatever the router serves.
  std::string outline;
  // Ascending by layer. To set one: layers that are not listed stay as they are.
  std::vector<LayerBias> layers;
};

// Copies of the experts of one layer.
struct LayerPlacement {
  uint32_t layer = 0;
  // [num_experts] 1 or more each.
  std::vector<uint32_t> copies_per_expert;
  // [sum(copies_per_expert)] Positions in PlacementPlan::nodes, expert by expert, ascending.
  std::vector<uint32_t> copy_nodes;
  // As many: the share of the expert's assignments that the copy is to get; 1 for each expert.
  std::vector<float> copy_shares;
};

// Which node is to hold which expert.
struct PlacementPlan {
  // NodeInfo::node_id, each once.
  std::vector<std::string> nodes;
  // Ascending by layer. What a plan does not name has no plan: every copy that is there is used.
  std::vector<LayerPlacement> layers;
};

// How copies are planned.
struct PlacementPolicy {
  // Plan every `interval`, and move at once what a plan says.
  bool automatic = false;
  absl::Duration interval;
  // Copies of every expert, at least (0: as many as the expert with the fewest has) and at most (0:
  // as many as there are nodes).
  uint32_t min_copies = 0;
  uint32_t max_copies = 0;
  // A layer keeps its copies unless its fullest node improves by more than this share.
  double hysteresis = 0;
  // Bytes that one plan may have loaded; 0: no bound.
  uint64_t byte_budget = 0;
  // Tokens of a layer that must have been counted before it is planned for.
  uint64_t min_tokens = 0;
};

// What is to be other than the policy in force; what is unset stays as it is. Ranges as in
// PlacementPolicy; intervals in whole milliseconds, rounded up.
struct PlacementChange {
  std::optional<bool> automatic;
  std::optional<absl::Duration> interval;
  std::optional<uint32_t> min_copies;
  std::optional<uint32_t> max_copies;
  std::optional<double> hysteresis;
  std::optional<uint64_t> byte_budget;
  std::optional<uint64_t> min_tokens;
};

// What a plan makes of one layer: the time that the fullest node needs for it, over the mean.
struct LayerForecast {
  uint32_t layer = 0;
  double fullest_over_mean = 1;
  // No plan has a lower one.
  double lower_bound = 1;
  // As copies are now; infinite where an expert has fewer than it must.
  double present_fullest_over_mean = 1;
  // The plan differs from what is now.
  bool changed = false;
};

// What the planner would do, and why.
struct PlacementProposal {
  // It is worth moving for; else `reason` says why not.
  bool apply = false;
  std::string reason;
  // Empty in PlacementState.
  PlacementPlan plan;
  // Ascending by layer.
  std::vector<LayerForecast> layers;
  // In words, the first 1,000 of `move_count`; empty in PlacementState.
  std::vector<std::string> moves;
  uint64_t move_count = 0;
  uint64_t bytes_loaded = 0;
  uint64_t bytes_freed = 0;
  // What loading would take.
  absl::Duration load_time;
};

// How far a move is, or how the last one ended.
struct PlacementMoves {
  // "idle", "loading", "switching", "unloading", "switching back", "undoing".
  std::string phase;
  // What it waits for; empty: nothing.
  std::string waits_for;
  uint64_t copies_done = 0;
  uint64_t copies_all = 0;
  uint64_t bytes_done = 0;
  uint64_t bytes_all = 0;
  double bytes_per_second = 0;
  // What went wrong last; empty: nothing.
  std::string last_error;
  // Since the router became the authority.
  uint64_t moves_completed = 0;
  uint64_t moves_failed = 0;
  uint64_t repairs_completed = 0;
};

struct PlacementState {
  uint64_t epoch = 0;
  PlacementPolicy policy;
  // The plan in force, told by Client::GetPlacement alone; unset: every copy that nodes offer is
  // used.
  std::optional<PlacementPlan> plan;
  // What the planner said last; unset: it was not asked since the router started.
  std::optional<PlacementProposal> last_proposal;
  PlacementMoves moves;
  // Since the planner was asked, and a move was completed, last; unset: never.
  std::optional<absl::Duration> since_planned;
  std::optional<absl::Duration> since_moved;
};

// A trace in one line.
struct TraceSummary {
  // 32 hexadecimal digits.
  std::string trace_id;
  // Name of the router's first span in it.
  std::string name;
  absl::Time start;
  absl::Duration duration;
  uint32_t layer = 0;
  uint64_t tokens = 0;
  absl::StatusCode code = absl::StatusCode::kOk;
  // Why it was kept: "sampled", "slow", "failed", "retried", "batch".
  std::string kept;
  uint32_t spans = 0;
};

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CONTROL_H_
