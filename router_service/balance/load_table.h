// What all routers of a mesh have counted: this one, those that report, and those that are gone.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_TABLE_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "expertmesh/internal/v1/authority.pb.h"
#include "expertmesh/v1/balance.pb.h"
#include "router_service/balance/load_counts.h"
#include "router_service/balance/steered_model.h"

namespace expertmesh::balance_control {

// A router's totals count once, however often they are reported; totals never shrink. Not
// thread-safe.
class LoadTable {
 public:
  // Routers that are told apart; what others beyond that counted is kept together.
  static constexpr size_t kMostRouters = 256;

  // A router that was silent for `gone_after` counts on, and is not waited for. `model` must
  // outlive the table.
  LoadTable(const SteeredModel* model, std::string self_id, absl::Duration gone_after);

  void SetOwn(LoadCounts totals, uint64_t epoch, absl::Time now);

  //   INVALID_ARGUMENT  counts that do not fit the model, or no router_id, or this router's own.
  absl::Status Report(const internal::v1::ReportLoadRequest& report, absl::Time now);

  // All of them together.
  std::shared_ptr<const LoadCounts> Totals() const;

  std::vector<v1::ReportingRouter> Describe(absl::Time now) const;
  // Whether every router that is not gone serves on `epoch` or a later one, as far as it said.
  bool AllServe(uint64_t epoch, absl::Time now) const;

  // On disk and back: all that was known counts as of routers that are gone.
  std::vector<internal::v1::ReportLoadRequest> Save() const;
  absl::Status Restore(const internal::v1::SavedState& saved);

 private:
  struct Router {
    LoadCounts totals;
    uint64_t epoch = 0;
    // InfinitePast: from before this router started.
    absl::Time heard = absl::InfinitePast();
  };

  bool Gone(const Router& router, absl::Time now) const;
  // Makes room for one more.
  void MergeOldest();

  const SteeredModel* const model_;
  const std::string self_id_;
  const absl::Duration gone_after_;
  std::map<std::string, Router> routers_;
  LoadCounts others_;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_TABLE_H_
