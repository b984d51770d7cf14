// How well a node serves, judged by what becomes of the batches that it is sent: how long an answer
// may take, and when the node is ejected, which is to say used only where no other can serve.
//
// An answer is overdue when it takes far longer than the nodes of the mesh usually take for as much
// work, so a mesh that is busy all over, or has large batches, waits longer; and it is never
// overdue before HealthOptions::shortest_limit.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_HEALTH_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_HEALTH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace expertmesh::mesh {

struct HealthOptions {
  // An answer may always take so long. InfiniteDuration: as long as it likes.
  absl::Duration shortest_limit = absl::Milliseconds(250);
  // So many times what the mesh usually takes is overdue.
  double patience = 4.0;
  // A node that is ejected is tried again after so long, twice as long each time that it fails.
  absl::Duration first_ejection = absl::Seconds(1);
  absl::Duration longest_ejection = absl::Seconds(30);
};

// What is wrong with a node's answers.
enum class NodeFault {
  kNonFinite,   // A NaN or an infinity for finite rows, which a replica did not have.
  kChecksum,    // The bytes are not those that were sent.
  kUnreadable,  // Bytes or rows that do not answer what was asked.
  kError,       // An error that says nothing of its queue or of what it holds.
  kLate,        // Overdue, while others were answered.
  kSilent,      // Overdue, and nothing was answered since it was sent.
};
// For metrics: "nonfinite", "checksum" and so on.
const char* NameOf(NodeFault fault);
// Those of all.
std::vector<std::string> NodeFaultNames();
// For people.
const char* TextOf(NodeFault fault);

// What became of batches lately, newest first in weight, for each assignment that was in flight to
// the node when one was sent. Not thread-safe.
class Pace {
 public:
  // A batch was answered `took` after it was sent, when `assignments`, its own included, were in
  // flight.
  void Add(absl::Duration took, uint64_t assignments);
  // Nothing was answered yet.
  bool unknown() const { return assignments_ == 0.0; }
  absl::Duration PerAssignment() const;

 private:
  double seconds_ = 0.0;
  double assignments_ = 0.0;
};

// The pace of the mesh as a whole: the lower median of its nodes', on which a node that lags has no
// influence while at least half of them do not. InfiniteDuration when there is none. Reorders
// `paces`.
absl::Duration UsualPace(std::vector<absl::Duration>* paces);

// Whether an error that a node answers with speaks against it. A full queue, an expert that has
// moved, or a node that stops do not, one by one.
bool SpeaksAgainstNode(absl::StatusCode code);

// Not thread-safe. Times are on one clock.
class NodeHealth {
 public:
  explicit NodeHealth(const HealthOptions& options) : options_(options) {}

  // How long a batch may take that was sent when `assignments`, its own included, were in flight.
  absl::Duration Limit(absl::Duration usual_pace, uint64_t assignments) const;

  // An answer was used, or the node failed, or it refused a batch.
  void Served(absl::Duration took, uint64_t assignments);
  void Failed(NodeFault fault);
  void Refused();
  const Pace& pace() const { return pace_; }

  // What it has done is enough to eject it. Empty: it is not, else why.
  std::string WhyEject() const;
  bool ejected() const { return ejected_; }
  // From then on it is tried again.
  absl::Time tried_at() const { return tried_at_; }
  // Until tried_at(), which is longer from now the sooner this is after the last time.
  void Eject(absl::Time now);
  // It was tried, in vain: for twice as long.
  void Extend(absl::Time now);
  // It is used again, and what was before is forgotten, but for how long it was ejected.
  void Restore(absl::Time now);

 private:
  const HealthOptions options_;
  Pace pace_;
  // Exponentially weighted share of batches that failed.
  double failed_share_ = 0.0;
  NodeFault last_fault_ = NodeFault::kError;
  bool silent_ = false;
  int refused_in_a_row_ = 0;
  bool ejected_ = false;
  absl::Time tried_at_;
  absl::Duration ejection_ = absl::ZeroDuration();
  absl::Time restored_at_ = absl::InfinitePast();
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_NODE_HEALTH_H_
