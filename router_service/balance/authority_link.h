// The seam between a follower and its authority.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_AUTHORITY_LINK_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_AUTHORITY_LINK_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "expertmesh/internal/v1/authority.pb.h"

namespace expertmesh::balance_control {

// What a follower hears. Calls come one after the other and must not block, nor destroy the link.
class AuthorityObserver {
 public:
  virtual ~AuthorityObserver() = default;
  virtual void OnDecision(internal::v1::Decision decision) = 0;
  // The stream ended, or could not be opened; the link tries again by itself.
  virtual void OnDisconnected(const absl::Status& why) = 0;
};

// Thread-safe.
class AuthorityLink {
 public:
  // Waits for a running callback; none runs afterwards.
  virtual ~AuthorityLink() = default;
  // Does not block. One at a time is on its way; what comes meanwhile is left out, as the next one
  // says it, too. A failure is told by OnDisconnected.
  virtual void Report(const internal::v1::ReportLoadRequest& counts) = 0;
};

// Thread-safe; outlives its links.
class AuthorityLinks {
 public:
  virtual ~AuthorityLinks() = default;
  // Follows the authority at `address` until the link is destroyed. `observer` must outlive it.
  virtual std::unique_ptr<AuthorityLink> Connect(const std::string& address,
                                                 const internal::v1::FollowRequest& request,
                                                 AuthorityObserver* observer) = 0;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_AUTHORITY_LINK_H_
