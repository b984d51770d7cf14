// The links of a follower to its authority, without one.
#ifndef EXPERTMESH_TESTS_SUPPORT_FAKE_AUTHORITY_LINKS_H_
#define EXPERTMESH_TESTS_SUPPORT_FAKE_AUTHORITY_LINKS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "router_service/balance/authority_link.h"

namespace expertmesh::balance_control {

// Leads to no router; what a follower hears, the test says.
class FakeAuthorityLinks final : public AuthorityLinks {
 public:
  std::unique_ptr<AuthorityLink> Connect(const std::string&, const internal::v1::FollowRequest&,
                                         AuthorityObserver* observer) override {
    observer_ = observer;
    return std::make_unique<Link>(this);
  }
  AuthorityObserver& observer() { return *observer_; }
  std::vector<internal::v1::ReportLoadRequest> reports() {
    absl::MutexLock lock(&mutex_);
    return reports_;
  }

 private:
  struct Link final : AuthorityLink {
    explicit Link(FakeAuthorityLinks* owner) : owner(owner) {}
    void Report(const internal::v1::ReportLoadRequest& counts) override {
      absl::MutexLock lock(&owner->mutex_);
      owner->reports_.push_back(counts);
    }
    FakeAuthorityLinks* const owner;
  };

  AuthorityObserver* observer_ = nullptr;
  absl::Mutex mutex_;
  std::vector<internal::v1::ReportLoadRequest> reports_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_TESTS_SUPPORT_FAKE_AUTHORITY_LINKS_H_
