#include "router_service/mesh/node_health.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace expertmesh::mesh {
namespace {

// Weight of a batch in the share of those that failed, and the share from which a node is ejected:
// three in a row are enough, and one in ten for ever is not.
constexpr double kFailureWeight = 0.1;
constexpr double kMostFailed = 0.25;
// A node that refuses everything is ejected, too, though a full queue is no fault: some batches get
// through to a node that is merely busy.
constexpr int kMostRefused = 16;
// What earlier batches count in the pace when one more is added.
constexpr double kPaceDecay = 31.0 / 32.0;
// A node that fails again within so many times its last ejection has not recovered.
constexpr double kRelapse = 10.0;

}  // namespace

const char* NameOf(NodeFault fault) {
  switch (fault) {
    case NodeFault::kNonFinite:
      return "nonfinite";
    case NodeFault::kChecksum:
      return "checksum";
    case NodeFault::kUnreadable:
      return "unreadable";
    case NodeFault::kError:
      return "error";
    case NodeFault::kLate:
      return "late";
    case NodeFault::kSilent:
      return "silent";
  }
  EXPERTMESH_CHECK(false);
}

std::vector<std::string> NodeFaultNames() {
  std::vector<std::string> names;
  for (const NodeFault fault : {NodeFault::kNonFinite, NodeFault::kChecksum, NodeFault::kUnreadable,
                                NodeFault::kError, NodeFault::kLate, NodeFault::kSilent}) {
    names.emplace_back(NameOf(fault));
  }
  return names;
}

const char* TextOf(NodeFault fault) {
  switch (fault) {
    case NodeFault::kNonFinite:
      return "NaN or an infinity for finite rows, where another replica is finite";
    case NodeFault::kChecksum:
      return "the checksum of a frame does not fit its bytes";
    case NodeFault::kUnreadable:
      return "an answer that does not fit what was asked";
    case NodeFault::kError:
      return "an error for a batch that was in order";
    case NodeFault::kLate:
      return "an answer far later than those of others";
    case NodeFault::kSilent:
      return "no answers, though batches wait for them";
  }
  EXPERTMESH_CHECK(false);
}

void Pace::Add(absl::Duration took, uint64_t assignments) {
  seconds_ = seconds_ * kPaceDecay + absl::ToDoubleSeconds(took);
  assignments_ =
      assignments_ * kPaceDecay + static_cast<double>(std::max<uint64_t>(assignments, 1));
}

absl::Duration Pace::PerAssignment() const { return absl::Seconds(seconds_ / assignments_); }

absl::Duration UsualPace(std::vector<absl::Duration>* paces) {
  if (paces->empty()) {
    return absl::InfiniteDuration();
  }
  const auto middle = paces->begin() + static_cast<std::ptrdiff_t>((paces->size() - 1) / 2);
  std::nth_element(paces->begin(), middle, paces->end());
  return *middle;
}

bool SpeaksAgainstNode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
      return false;
    default:
      return true;
  }
}

absl::Duration NodeHealth::Limit(absl::Duration usual_pace, uint64_t assignments) const {
  return std::max(options_.shortest_limit,
                  usual_pace * options_.patience * static_cast<double>(assignments));
}

void NodeHealth::Served(absl::Duration took, uint64_t assignments) {
  pace_.Add(took, assignments);
  failed_share_ -= kFailureWeight * failed_share_;
  refused_in_a_row_ = 0;
  silent_ = false;
}

void NodeHealth::Failed(NodeFault fault) {
  failed_share_ += kFailureWeight * (1.0 - failed_share_);
  last_fault_ = fault;
  silent_ = silent_ || fault == NodeFault::kSilent;
}

void NodeHealth::Refused() { ++refused_in_a_row_; }

std::string NodeHealth::WhyEject() const {
  if (silent_) {
    return TextOf(NodeFault::kSilent);
  }
  if (failed_share_ >= kMostFailed) {
    return absl::StrCat(static_cast<int>(failed_share_ * 100.0),
                        " % of its last batches failed, the last by ", TextOf(last_fault_));
  }
  if (refused_in_a_row_ >= kMostRefused) {
    return absl::StrCat("it refused ", refused_in_a_row_, " batches one after the other");
  }
  return "";
}

void NodeHealth::Eject(absl::Time now) {
  const bool relapse = now - restored_at_ < ejection_ * kRelapse;
  ejection_ =
      relapse ? std::min(ejection_ * 2, options_.longest_ejection) : options_.first_ejection;
  ejected_ = true;
  tried_at_ = now + ejection_;
}

void NodeHealth::Extend(absl::Time now) {
  ejection_ = std::min(ejection_ * 2, options_.longest_ejection);
  tried_at_ = now + ejection_;
}

void NodeHealth::Restore(absl::Time now) {
  ejected_ = false;
  restored_at_ = now;
  failed_share_ = 0.0;
  refused_in_a_row_ = 0;
  silent_ = false;
}

}  // namespace expertmesh::mesh
