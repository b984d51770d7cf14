// What the client makes of placement, against a small server that remembers what it was asked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/cpp/expertmesh/client.h"
#include "common/net/grpc_server.h"
#include "common/wire/error_reason.h"
#include "expertmesh/v1/control.grpc.pb.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "tests/support/scripted_watch.h"

namespace expertmesh::client {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

v1::PlacementPlan PlanOf() {
  v1::PlacementPlan plan;
  plan.add_nodes("a");
  plan.add_nodes("b");
  v1::LayerPlacement& layer = *plan.add_layers();
  layer.set_layer(3);
  for (const uint32_t copies : {2, 1}) {
    layer.add_copies_per_expert(copies);
  }
  for (const uint32_t node : {0, 1, 1}) {
    layer.add_copy_nodes(node);
  }
  for (const float share : {0.25f, 0.75f, 1.0f}) {
    layer.add_copy_shares(share);
  }
  return plan;
}

v1::PlacementProposal ProposalOf() {
  v1::PlacementProposal proposal;
  proposal.set_apply(true);
  proposal.set_reason("it is worth it");
  v1::LayerForecast& layer = *proposal.add_layers();
  layer.set_layer(3);
  layer.set_fullest_over_mean(1.25);
  layer.set_lower_bound(1.125);
  layer.set_present_fullest_over_mean(std::numeric_limits<double>::infinity());
  layer.set_changed(true);
  proposal.set_move_count(7);
  proposal.set_bytes_loaded(uint64_t{1} << 40);
  proposal.set_bytes_freed(9);
  proposal.set_load_seconds(2.5);
  return proposal;
}

// `age_ms`: of all that grows by itself.
v1::PlacementState StateOf(uint64_t epoch, uint64_t age_ms) {
  v1::PlacementState state;
  state.set_epoch(epoch);
  v1::PlacementPolicy& policy = *state.mutable_policy();
  policy.set_automatic(true);
  policy.set_interval_ms(1500);
  policy.set_min_copies(2);
  policy.set_max_copies(4);
  policy.set_hysteresis(0.125);
  policy.set_byte_budget(uint64_t{1} << 41);
  policy.set_min_tokens(uint64_t{1} << 42);
  v1::PlacementMoves& moves = *state.mutable_moves();
  moves.set_phase("loading");
  moves.set_waits_for("a node");
  moves.set_copies_done(1);
  moves.set_copies_all(2);
  moves.set_bytes_done(3);
  moves.set_bytes_all(4);
  moves.set_bytes_per_second(static_cast<double>(age_ms));
  moves.set_last_error("no room");
  moves.set_moves_completed(5);
  moves.set_moves_failed(6);
  moves.set_repairs_completed(7);
  *state.mutable_last_proposal() = ProposalOf();
  state.set_since_planned_ms(age_ms);
  state.set_since_moved_ms(age_ms + 1);
  return state;
}

class ClientPlacementTest : public testing::Test {
 protected:
  ClientPlacementTest() {
    v1::GetPlacementResponse got;
    *got.mutable_placement() = StateOf(7, 1500);
    *got.mutable_placement()->mutable_plan() = PlanOf();
    v1::SetPlacementResponse set;
    set.mutable_placement()->set_epoch(8);
    v1::PlanPlacementResponse planned;
    *planned.mutable_proposal() = ProposalOf();
    *planned.mutable_proposal()->mutable_plan() = PlanOf();
    planned.mutable_proposal()->add_moves("expert 1 goes to b");
    v1::ApplyPlacementResponse applied;
    applied.mutable_placement()->set_epoch(9);
    net::GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    Add<v1::GetPlacementRequest>("GetPlacement", got, &spec);
    Add<v1::SetPlacementRequest>("SetPlacement", set, &spec);
    Add<v1::PlanPlacementRequest>("PlanPlacement", planned, &spec);
    Add<v1::ApplyPlacementRequest>("ApplyPlacement", applied, &spec);
    spec.streams.push_back(net::ScriptedWatch(
        "/expertmesh.v1.Control/WatchPlacement", [](net::ServerStreamSink& watcher) {
          // The second differs from the first in nothing but ages and speeds.
          for (const auto& [epoch, age] :
               {std::pair<uint64_t, uint64_t>(1, 10), {1, 20}, {2, 20}}) {
            v1::WatchPlacementResponse response;
            *response.mutable_placement() = StateOf(epoch, age);
            if (!net::SendMessage(watcher, response)) {
              return absl::CancelledError("the caller has seen enough");
            }
          }
          return absl::AbortedError("enough");
        }));
    auto server = net::GrpcServer::Start(std::move(spec));
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto client = Client::Connect("127.0.0.1:" + std::to_string(server_->port()));
    EXPECT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  template <typename Request, typename Response>
  void Add(const std::string& name, const Response& answer, net::GrpcServerSpec* spec) {
    spec->ordinary.push_back(net::OrdinaryMethod<Request, Response>(
        "/expertmesh.v1.Control/" + name,
        [this, answer](const Request& request) -> absl::StatusOr<Response> {
          absl::MutexLock lock(&mutex_);
          asked_.push_back(request.SerializeAsString());
          const absl::Status end = ends_.empty() ? absl::OkStatus() : ends_.front();
          ends_.erase(ends_.begin(), ends_.begin() + (ends_.empty() ? 0 : 1));
          return end.ok() ? absl::StatusOr<Response>(answer) : end;
        }));
  }

  // How the next requests end, and those after them with their answers.
  void EndWith(const std::vector<absl::Status>& ends) {
    absl::MutexLock lock(&mutex_);
    asked_.clear();
    ends_ = ends;
  }
  size_t Count() {
    absl::MutexLock lock(&mutex_);
    return asked_.size();
  }
  // The last request.
  template <typename Request>
  Request Asked() {
    absl::MutexLock lock(&mutex_);
    Request request;
    EXPECT_TRUE(!asked_.empty() && request.ParseFromString(asked_.back()));
    return request;
  }

  absl::Mutex mutex_;
  std::vector<std::string> asked_ ABSL_GUARDED_BY(mutex_);
  // How the next requests end, whether carried out or not.
  std::vector<absl::Status> ends_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<net::GrpcServer> server_;
  std::unique_ptr<Client> client_;
};

void ExpectPlan(const PlacementPlan& plan) {
  EXPECT_THAT(plan.nodes, ElementsAre("a", "b"));
  ASSERT_EQ(plan.layers.size(), 1u);
  EXPECT_EQ(plan.layers[0].layer, 3u);
  EXPECT_THAT(plan.layers[0].copies_per_expert, ElementsAre(2, 1));
  EXPECT_THAT(plan.layers[0].copy_nodes, ElementsAre(0, 1, 1));
  EXPECT_THAT(plan.layers[0].copy_shares, ElementsAre(0.25f, 0.75f, 1.0f));
}

void ExpectForecast(const PlacementProposal& proposal) {
  EXPECT_TRUE(proposal.apply);
  EXPECT_EQ(proposal.reason, "it is worth it");
  ASSERT_EQ(proposal.layers.size(), 1u);
  EXPECT_EQ(proposal.layers[0].layer, 3u);
  EXPECT_EQ(proposal.layers[0].fullest_over_mean, 1.25);
  EXPECT_EQ(proposal.layers[0].lower_bound, 1.125);
  EXPECT_TRUE(std::isinf(proposal.layers[0].present_fullest_over_mean));
  EXPECT_TRUE(proposal.layers[0].changed);
  EXPECT_EQ(proposal.move_count, 7u);
  EXPECT_EQ(proposal.bytes_loaded, uint64_t{1} << 40);
  EXPECT_EQ(proposal.bytes_freed, 9u);
  EXPECT_EQ(proposal.load_time, absl::Milliseconds(2500));
}

TEST_F(ClientPlacementTest, ShowsPlanPolicyAndMoves) {
  const auto state = client_->GetPlacement();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->epoch, 7u);
  EXPECT_TRUE(state->policy.automatic);
  EXPECT_EQ(state->policy.interval, absl::Milliseconds(1500));
  EXPECT_EQ(state->policy.min_copies, 2u);
  EXPECT_EQ(state->policy.max_copies, 4u);
  EXPECT_EQ(state->policy.hysteresis, 0.125);
  EXPECT_EQ(state->policy.byte_budget, uint64_t{1} << 41);
  EXPECT_EQ(state->policy.min_tokens, uint64_t{1} << 42);
  ASSERT_TRUE(state->plan.has_value());
  ExpectPlan(*state->plan);
  ASSERT_TRUE(state->last_proposal.has_value());
  ExpectForecast(*state->last_proposal);
  EXPECT_THAT(state->last_proposal->moves, IsEmpty());
  EXPECT_EQ(state->moves.phase, "loading");
  EXPECT_EQ(state->moves.waits_for, "a node");
  EXPECT_EQ(state->moves.copies_done, 1u);
  EXPECT_EQ(state->moves.copies_all, 2u);
  EXPECT_EQ(state->moves.bytes_done, 3u);
  EXPECT_EQ(state->moves.bytes_all, 4u);
  EXPECT_EQ(state->moves.bytes_per_second, 1500);
  EXPECT_EQ(state->moves.last_error, "no room");
  EXPECT_EQ(state->moves.moves_completed, 5u);
  EXPECT_EQ(state->moves.moves_failed, 6u);
  EXPECT_EQ(state->moves.repairs_completed, 7u);
  EXPECT_EQ(state->since_planned, absl::Milliseconds(1500));
  EXPECT_EQ(state->since_moved, absl::Milliseconds(1501));
}

// Its own move is under way when it comes a second time.
TEST_F(ClientPlacementTest, AMoveIsNotAskedForAgainWhenItMayHaveBegun) {
  for (const bool abort : {false, true}) {
    EndWith({absl::UnavailableError("Socket closed"),
             absl::FailedPreconditionError("a move is under way")});
    const absl::Status status =
        abort ? client_->AbortPlacement().status() : client_->ApplyPlacement().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(testing::HasSubstr("whether this was carried out is not known"),
                               testing::HasSubstr("Socket closed")));
    EXPECT_EQ(Count(), 1u);
  }
}

TEST_F(ClientPlacementTest, AMoveIsAskedForAgainWhenTheRouterDidNothing) {
  EndWith({ErrorOf(v1::ERROR_REASON_ROUTER_STOPPING, "call another one"),
           ErrorOf(v1::ERROR_REASON_QUEUE_FULL, "later")});
  const auto state = client_->ApplyPlacement();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->epoch, 9u);
  EXPECT_EQ(Count(), 3u);
}

TEST_F(ClientPlacementTest, APolicyIsSetAgainWhenItsAnswerIsLost) {
  EndWith({absl::UnavailableError("Socket closed")});
  EXPECT_TRUE(client_->SetPlacement({}).ok());
  EXPECT_EQ(Count(), 2u);
}

TEST_F(ClientPlacementTest, WhatIsNotToldIsUnset) {
  const auto state = client_->SetPlacement({});
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->epoch, 8u);
  EXPECT_EQ(state->plan.has_value(), false);
  EXPECT_EQ(state->last_proposal.has_value(), false);
  EXPECT_EQ(state->since_planned, std::nullopt);
  EXPECT_EQ(state->since_moved, std::nullopt);
}

TEST_F(ClientPlacementTest, ChangesWhatIsGivenAndNothingElse) {
  PlacementChange change;
  change.automatic = false;
  change.interval = absl::Microseconds(1500);
  change.max_copies = 0;
  change.byte_budget = 0;
  ASSERT_TRUE(client_->SetPlacement(change).ok());
  auto policy = Asked<v1::SetPlacementRequest>().policy();
  EXPECT_TRUE(policy.has_automatic() && policy.has_max_copies() && policy.has_byte_budget());
  EXPECT_FALSE(policy.automatic());
  EXPECT_EQ(policy.interval_ms(), 2u);
  EXPECT_FALSE(policy.has_min_copies() || policy.has_hysteresis() || policy.has_min_tokens());

  change = {};
  change.min_copies = 2;
  change.hysteresis = 0;
  change.min_tokens = 1;
  ASSERT_TRUE(client_->PlanPlacement(change).ok());
  policy = Asked<v1::PlanPlacementRequest>().policy();
  EXPECT_EQ(policy.min_copies(), 2u);
  EXPECT_TRUE(policy.has_hysteresis());
  EXPECT_EQ(policy.min_tokens(), 1u);
  EXPECT_FALSE(policy.has_automatic() || policy.has_interval_ms() || policy.has_max_copies() ||
               policy.has_byte_budget());
}

TEST_F(ClientPlacementTest, APlanGoesBothWays) {
  const auto proposal = client_->PlanPlacement();
  ASSERT_TRUE(proposal.ok()) << proposal.status();
  ExpectForecast(*proposal);
  ExpectPlan(proposal->plan);
  EXPECT_THAT(proposal->moves, ElementsAre("expert 1 goes to b"));

  const auto state = client_->ApplyPlacement(proposal->plan);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->epoch, 9u);
  const auto asked = Asked<v1::ApplyPlacementRequest>();
  EXPECT_EQ(asked.plan().SerializeAsString(), PlanOf().SerializeAsString());
  EXPECT_FALSE(asked.abort());
}

TEST_F(ClientPlacementTest, ThePlannersPlanAndAnAbortNameNoPlan) {
  ASSERT_TRUE(client_->ApplyPlacement().ok());
  auto asked = Asked<v1::ApplyPlacementRequest>();
  EXPECT_FALSE(asked.has_plan() || asked.abort());
  ASSERT_TRUE(client_->AbortPlacement().ok());
  asked = Asked<v1::ApplyPlacementRequest>();
  EXPECT_TRUE(asked.abort());
  EXPECT_FALSE(asked.has_plan());
}

TEST_F(ClientPlacementTest, AWatchTellsWhatIsNewAndNotThatTimePasses) {
  std::vector<uint64_t> seen;
  const absl::Status end = client_->WatchPlacement([&seen](const PlacementState& state) {
    seen.push_back(state.epoch);
    return true;
  });
  EXPECT_EQ(end.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(seen, ElementsAre(1, 2));
}

}  // namespace
}  // namespace expertmesh::client
