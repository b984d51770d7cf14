// The side of a router that follows: what it heard of its authority, and whether to believe it.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_FOLLOWER_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_FOLLOWER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "router_service/balance/authority_link.h"
#include "router_service/balance/decision.h"
#include "router_service/balance/steered_model.h"

namespace expertmesh::balance_control {

// OK when `next` may follow `last`: of a later term; or of the same authority and no earlier epoch.
//   FAILED_PRECONDITION  two authorities are at work, or an old one is; says which is right.
absl::Status CheckSuccession(const Decision& last, const internal::v1::Decision& next);

// Thread-safe.
class Follower final : private AuthorityObserver {
 public:
  // Begins at once. `wake` is called, from any thread and without locks, when there is something to
  // take. Pointers must outlive the follower.
  Follower(const SteeredModel* model, AuthorityLinks* links, const std::string& address,
           absl::Duration heartbeat, Clock* clock, std::function<void()> wake);
  ~Follower() override;

  // What was decided since the last call, following `last`; nothing when nothing is new.
  //   else  what is wrong with it, which is kept for problem(), too.
  absl::StatusOr<std::optional<Decision>> Take(const Decision& last);

  void Report(const internal::v1::ReportLoadRequest& counts) { link_->Report(counts); }

  // When the authority was heard last, and believed; InfinitePast: never.
  absl::Time heard() const;
  // What is wrong with the authority; empty: nothing is known to be.
  std::string problem() const;

 private:
  void OnDecision(internal::v1::Decision decision) override;
  void OnDisconnected(const absl::Status& why) override;

  const SteeredModel* const model_;
  const std::string address_;
  Clock* const clock_;
  const std::function<void()> wake_;

  mutable absl::Mutex mutex_;
  std::optional<internal::v1::Decision> pending_ ABSL_GUARDED_BY(mutex_);
  absl::Time pending_since_ ABSL_GUARDED_BY(mutex_);
  absl::Time heard_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::string problem_ ABSL_GUARDED_BY(mutex_) = "not heard yet";

  std::unique_ptr<AuthorityLink> link_;  // Last: calls back into the above.
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_FOLLOWER_H_
