// Central management: one thread that looks at the load of the mesh, decides on bias and placement
// (an authority), or follows what another router decides, and puts it in force.
//
//   counters of layers, reports of followers -> LoadTable -> BiasSteering, PlacementSteering
//        -> Decision -> StateStore (disk) -> Fleet::SetDirective (views) -> those who watch
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_CONTROLLER_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_CONTROLLER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "expertmesh/internal/v1/authority.pb.h"
#include "expertmesh/v1/balance.pb.h"
#include "expertmesh/v1/control.pb.h"
#include "expertmesh/v1/placement.pb.h"
#include "router_service/balance/authority.h"
#include "router_service/balance/authority_link.h"
#include "router_service/balance/bias_history.h"
#include "router_service/balance/bias_steering.h"
#include "router_service/balance/decision.h"
#include "router_service/balance/follower.h"
#include "router_service/balance/load_history.h"
#include "router_service/balance/load_table.h"
#include "router_service/balance/placement_steering.h"
#include "router_service/balance/score_sample.h"
#include "router_service/balance/state_store.h"
#include "router_service/balance/steered_model.h"
#include "router_service/mesh/fleet.h"

namespace expertmesh::balance_control {

struct ControllerOptions {
  // Another one each time the program starts.
  std::string router_id;
  // How often load is looked at; infinite: only when the program starts.
  absl::Duration interval = absl::InfiniteDuration();
  // The policy of every layer until another is set.
  balance::BiasPolicy policy;
  // Folder for what must survive a kill; empty: nothing is kept.
  std::string state_dir;
  // How gently copies are moved.
  moves::MoverOptions mover;
  // No term is lower than this: seconds of the calendar, so that terms grow where no state is kept.
  uint64_t least_term = 1;
};

// What a router knows of its own layers beside their totals.
struct LayerGauges {
  double batch_max_violation = 0;
  // Null: no scores are sampled. Outlives the controller.
  ScoreSample* scores = nullptr;
};

class Controller;

// What a controller works with; all of it outlives the controller.
struct ControllerParts {
  const Authority* authority = nullptr;
  // By layer, now. From any thread.
  std::function<std::map<uint32_t, LayerGauges>()> read_gauges;
  // After every tick, on the controller's thread, also before Create has returned. May be empty.
  std::function<void(const Controller& controller)> after_tick;
  // Null where `authority` never names another router.
  AuthorityLinks* links = nullptr;
  mesh::Fleet* fleet = nullptr;
  Clock* clock = nullptr;
};

// Thread-safe.
class Controller {
 public:
  // Restores what `options.state_dir` holds and puts it in force. `read_counts` gives this router's
  // totals; may be called from any thread.
  //   DATA_LOSS            a state is there and cannot be used.
  //   FAILED_PRECONDITION  it is of another model, or another process uses the folder.
  static absl::StatusOr<std::unique_ptr<Controller>> Create(ControllerOptions options,
                                                            SteeredModel model,
                                                            std::function<LoadCounts()> read_counts,
                                                            const ControllerParts& parts);
  // Stops.
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  // Control; see proto/expertmesh/v1/control.proto for what they do, and their errors. Those that
  // change something return when it is in force.
  v1::Balance GetBalance() const;
  absl::StatusOr<v1::Balance> SetBalance(const v1::SetBalanceRequest& request);
  absl::StatusOr<v1::Bias> GetBias(uint64_t epoch) const;
  absl::StatusOr<v1::Balance> SetBias(const v1::SetBiasRequest& request);
  v1::GetLoadResponse GetLoad(const v1::GetLoadRequest& request);
  v1::PlacementState GetPlacement(bool with_plan) const;
  absl::StatusOr<v1::PlacementState> SetPlacement(const v1::SetPlacementRequest& request);
  absl::StatusOr<v1::PlacementProposal> PlanPlacement(const v1::PlanPlacementRequest& request);
  absl::StatusOr<v1::PlacementState> ApplyPlacement(const v1::ApplyPlacementRequest& request);
  v1::BalanceSummary Summary() const;

  // Authority; see proto/expertmesh/internal/v1/authority.proto.
  absl::Status CheckFollower(const internal::v1::FollowRequest& request) const;
  // What is in force. `version`: another one whenever more than the epoch has changed.
  internal::v1::Decision DecisionInForce(uint64_t* version) const;
  absl::StatusOr<internal::v1::ReportLoadResponse> Report(
      const internal::v1::ReportLoadRequest& request);

  // Calls `callback` after every decision, every tick and every change of the fleet, until the
  // answer is destroyed, which waits for a running call. From any thread, one at a time; must not
  // block.
  std::shared_ptr<void> Subscribe(std::function<void()> callback);

 private:
  Controller(ControllerOptions options, SteeredModel model, std::function<LoadCounts()> read_counts,
             const ControllerParts& parts);

  absl::Status Restore();
  void Run();
  // Waits until then or for something to do; false when stopping.
  bool AwaitWork(absl::Time until);
  // Begins to decide, or to follow.
  void Serve(const Leader& leader);
  void TakeFromAuthority();
  void Tick();
  // Between ticks: takes back a bias that was set and passes the quality budget.
  void Look();
  // When that is to be done next; `next`: as it was.
  absl::Time NextLook(absl::Time next) const;
  // What this router has counted, on epoch `epoch`; and the next step of what follows from the
  // load.
  void Count(std::shared_ptr<const LoadCounts> own, uint64_t epoch, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Puts decision_ in force, if there is one that is not.
  void PublishIfNew();
  // Takes the measures of the scores, if that is due.
  void Measure(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The mover has every router follow `plan` from now on; and hears when they do.
  void SwitchPlan(uint64_t switch_id, moves::PlanPtr plan);
  void ConfirmSwitch();
  void Save();
  void Tell();

  absl::Status CheckDecides() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // There is something new in decision_.
  void Decide() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What the mesh has counted up to now.
  std::shared_ptr<const LoadCounts> CountNow(uint64_t epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits until what was decided is in force.
  void AwaitPublished() ABSL_LOCKS_EXCLUDED(mutex_);
  v1::BalanceSummary SummaryLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string WhatIsWrong(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What is planned by: load of late, and the policy with `change`.
  struct PlanningBasis {
    LoadCounts loads;
    PlacementPolicy policy;
  };
  absl::StatusOr<PlanningBasis> BasisWith(const v1::PlacementPolicy& change) const;

  const ControllerOptions options_;
  const SteeredModel model_;
  const std::function<LoadCounts()> read_counts_;
  const std::function<std::map<uint32_t, LayerGauges>()> read_gauges_;
  const std::function<void(const Controller& controller)> after_tick_;
  const Authority* const authority_;
  AuthorityLinks* const links_;
  mesh::Fleet* const fleet_;
  Clock* const clock_;

  // Used by the thread alone, and before it starts.
  std::optional<StateStore> store_;
  uint64_t reserved_epoch_ = 0;
  absl::Time saved_at_ = absl::InfinitePast();

  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  Leader leader_ ABSL_GUARDED_BY(mutex_);
  // As it is to be, and its number; in force up to published_.
  Decision decision_ ABSL_GUARDED_BY(mutex_);
  uint64_t decided_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t published_ ABSL_GUARDED_BY(mutex_) = 0;
  // By number: what is in force, and what is about to be or just was.
  std::map<uint64_t, std::shared_ptr<const Decision>> recent_ ABSL_GUARDED_BY(mutex_);
  // Kept for as long as they are the same: views tell by the object what is new.
  std::shared_ptr<const mesh::SelectBiases> live_biases_ ABSL_GUARDED_BY(mutex_);
  BiasSteering steering_ ABSL_GUARDED_BY(mutex_){&model_};
  BiasHistory history_ ABSL_GUARDED_BY(mutex_);
  LoadTable table_ ABSL_GUARDED_BY(mutex_);
  // Loads of the mesh, and of this router alone.
  LoadHistory loads_ ABSL_GUARDED_BY(mutex_);
  LoadHistory own_loads_ ABSL_GUARDED_BY(mutex_);
  // By layer; those of scores are taken now and then.
  std::map<uint32_t, v1::LayerMeasures> measures_ ABSL_GUARDED_BY(mutex_);
  absl::Time measured_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  // Null while this router is the authority.
  std::unique_ptr<Follower> follower_ ABSL_GUARDED_BY(mutex_);
  absl::Time ticked_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time published_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::string save_problem_ ABSL_GUARDED_BY(mutex_);
  // A change of plan that some router may not follow yet: its number, that of its decision, and
  // (once it is in force) its epoch.
  struct Switch {
    uint64_t id = 0;
    uint64_t decision = 0;
    std::optional<uint64_t> epoch;
  };
  std::optional<Switch> switch_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex subscribers_mutex_;
  uint64_t next_subscriber_ ABSL_GUARDED_BY(subscribers_mutex_) = 1;
  absl::flat_hash_map<uint64_t, std::function<void()>> subscribers_
      ABSL_GUARDED_BY(subscribers_mutex_);

  std::unique_ptr<PlacementSteering> placement_;  // Calls back into the above.
  uint64_t fleet_subscription_ = 0;
  std::thread thread_;  // Last: starts when all else is there.
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_CONTROLLER_H_
