// What is known of each node while experts move, and the one request that it may have under way.
#ifndef EXPERTMESH_ROUTER_SERVICE_MOVES_NODE_TABLE_H_
#define EXPERTMESH_ROUTER_SERVICE_MOVES_NODE_TABLE_H_

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "router_service/moves/movable_nodes.h"
#include "router_service/moves/mover_options.h"

namespace expertmesh::moves {

enum class CallKind { kLoad, kUnload };

// A request to one node.
struct NodeCall {
  uint64_t id = 0;
  CallKind kind = CallKind::kLoad;
  std::vector<ExpertKey> keys;
  uint64_t bytes = 0;
  // Answered with OK; it is over when the node's status agrees.
  std::optional<absl::Time> answered;
};

// What an answer means.
struct Verdict {
  enum class Kind {
    kOk,
    kAgain,   // Lost on the way: the node may or may not have done it.
    kFailed,  // Refused, or lost too often.
    kFenced,  // Another authority decides.
  };
  Kind kind = Kind::kOk;
  CallKind call = CallKind::kLoad;
  std::string node_id;
  // Names the node.
  absl::Status status;
};

// Not thread-safe.
class NodeTable {
 public:
  struct Node {
    NodeState state;
    std::optional<NodeCall> call;
    // Copies that were asked to be let go and are still there, perhaps not for long.
    HeldExperts leaving;
    absl::Time away_since = absl::InfiniteFuture();
    // Not asked before.
    absl::Time not_before = absl::InfinitePast();
    int failures = 0;
    // More may be loaded from then on.
    absl::Time pace = absl::InfinitePast();
    // As the last answer to an unload said; the node's status may be older than that.
    uint64_t weights_at_most = std::numeric_limits<uint64_t>::max();
    // All that it holds, in units of ExpertSizes.
    uint64_t held_units = 0;
  };

  NodeTable(MoverOptions options, ExpertSizes sizes);

  // What the nodes say now. Gives what went wrong with calls that had been answered.
  std::vector<Verdict> Refresh(absl::Time now, const std::vector<NodeState>& states);

  // By node_id.
  const std::map<std::string, Node>& nodes() const { return nodes_; }
  // Null: never heard of.
  const Node* Find(const std::string& node_id) const;
  bool Ready(const std::string& node_id) const;
  // It holds the copy and nothing is under way against that, though it may drain or be ejected.
  bool Holds(const std::string& node_id, const ExpertKey& key) const;
  // It does and is ready: batches may count on the copy.
  bool HasCopy(const std::string& node_id, const ExpertKey& key) const;
  bool AnyCall() const;

  // About; never 0.
  uint64_t BytesOf(const std::string& node_id, const ExpertKey& key) const;
  // About what it holds that no move changes.
  uint64_t OtherBytes(const std::string& node_id) const;
  // What more it may hold.
  uint64_t FreeBytes(const std::string& node_id) const;
  // When more may be loaded.
  absl::Time LoadableAt(const std::string& node_id) const;

  // The node, which must have none, now has this call. Its id.
  uint64_t Begin(const std::string& node_id, CallKind kind, std::vector<ExpertKey> keys,
                 absl::Time now);
  // `weights_bytes`: what the node said it holds now.
  Verdict Answer(uint64_t call_id, const absl::Status& status, uint64_t weights_bytes,
                 absl::Time now);
  // Whatever is under way is no longer of interest.
  void Forget();

 private:
  void Update(Node* node, const NodeState& state, absl::Time now);
  // Whether the call is over; what went wrong, if anything.
  Verdict Settle(Node* node, absl::Time now);
  double UnitBytes(const Node& node) const;

  const MoverOptions options_;
  const ExpertSizes sizes_;
  std::map<std::string, Node> nodes_;
  uint64_t next_call_ = 1;
  absl::Time pace_ = absl::InfinitePast();
};

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_ROUTER_SERVICE_MOVES_NODE_TABLE_H_
