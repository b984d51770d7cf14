// Threads, callbacks and time around a move.
#include "router_service/moves/placement_mover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/support/too_long.h"

namespace expertmesh::moves {
namespace {

using balance::PlacementPlan;
using testing::ElementsAre;
using testing::HasSubstr;

// Nodes that answer when the test says so.
class HeldBackNodes final : public MovableNodes {
 public:
  std::vector<NodeState> Nodes() const override {
    absl::MutexLock lock(&mutex_);
    return states_;
  }
  void Load(const std::string& node_id, const internal::v1::LoadExpertsRequest& request,
            absl::Duration timeout, LoadDone done) override {
    absl::MutexLock lock(&mutex_);
    loads_.push_back(std::move(done));
    Add("load", node_id, request, timeout);
  }
  void Unload(const std::string& node_id, const internal::v1::UnloadExpertsRequest& request,
              absl::Duration timeout, UnloadDone done) override {
    absl::MutexLock lock(&mutex_);
    unloads_.push_back(std::move(done));
    Add("unload", node_id, request, timeout);
  }

  void Set(std::vector<std::pair<std::string, HeldExperts>> held) {
    absl::MutexLock lock(&mutex_);
    states_.clear();
    for (auto& [node_id, experts] : held) {
      NodeState& state = states_.emplace_back();
      state.node_id = node_id;
      state.instance_id = "one";
      state.ready = true;
      state.weights_bytes = 10 * experts.size();
      state.held = std::make_shared<const HeldExperts>(std::move(experts));
    }
  }
  void AnswerLoad(const absl::StatusOr<internal::v1::LoadExpertsResponse>& answer) {
    LoadDone done;
    {
      absl::MutexLock lock(&mutex_);
      done = std::move(loads_.front());
      loads_.pop_front();
    }
    done(answer);
  }
  void AnswerUnload(const absl::StatusOr<internal::v1::UnloadExpertsResponse>& answer) {
    UnloadDone done;
    {
      absl::MutexLock lock(&mutex_);
      done = std::move(unloads_.front());
      unloads_.pop_front();
    }
    done(answer);
  }

  std::vector<std::string> Await(size_t count) const {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return log_.size() >= count; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&reached), kTooLong));
    return log_;
  }

 private:
  template <typename Request>
  void Add(const std::string& what, const std::string& node_id, const Request& request,
           absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::string line = absl::StrCat(what, " ", node_id, " in term ", request.term(), " within ",
                                    absl::FormatDuration(timeout), ":");
    for (const v1::HostedExperts& entry : request.experts()) {
      absl::StrAppend(&line, " layer ", entry.layer(), " slice ", entry.slice_index(), "/",
                      entry.slice_count(), " experts ", absl::StrJoin(entry.experts(), ","));
    }
    log_.push_back(std::move(line));
  }

  mutable absl::Mutex mutex_;
  std::vector<NodeState> states_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> log_ ABSL_GUARDED_BY(mutex_);
  std::deque<LoadDone> loads_ ABSL_GUARDED_BY(mutex_);
  std::deque<UnloadDone> unloads_ ABSL_GUARDED_BY(mutex_);
};

class PlacementMoverTest : public testing::Test {
 protected:
  void SetUp() override {
    nodes_.Set({{"a", {{1, 0}, {1, 1}, {2, 0}}}, {"b", {}}});
    MoverOptions options;
    options.call_timeout = absl::Seconds(9);
    mover_ = std::make_unique<PlacementMover>(options, ExpertSizes{{1, 5}, {2, 5}}, &nodes_,
                                              MoveOwner{[this](uint64_t id, const PlanPtr& plan) {
                                                          absl::MutexLock lock(&mutex_);
                                                          switch_ = {id, plan};
                                                        },
                                                        [this](const MoveOutcome& outcome) {
                                                          absl::MutexLock lock(&mutex_);
                                                          outcome_ = outcome;
                                                        }},
                                              &timers_, &clock_);
  }

  static PlanPtr AllOnB() {
    return std::make_shared<const PlacementPlan>(
        PlacementPlan{{"a", "b"}, {{1, {{{1, 1.0f}}, {{1, 1.0f}}}}, {2, {{{1, 1.0f}}}}}});
  }
  std::pair<uint64_t, PlanPtr> AwaitSwitch() {
    absl::MutexLock lock(&mutex_);
    const auto told = [this]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return switch_.has_value(); };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&told), kTooLong));
    return switch_.value_or(std::pair<uint64_t, PlanPtr>());
  }
  absl::Status AwaitEnd() {
    absl::MutexLock lock(&mutex_);
    const auto told = [this]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return outcome_.has_value(); };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&told), kTooLong));
    return outcome_.has_value() ? outcome_->status : absl::UnknownError("it has not ended");
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  HeldBackNodes nodes_;
  absl::Mutex mutex_;
  std::optional<std::pair<uint64_t, PlanPtr>> switch_ ABSL_GUARDED_BY(mutex_);
  std::optional<MoveOutcome> outcome_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<PlacementMover> mover_;
};

TEST_F(PlacementMoverTest, AsksNodesInItsTermAndItsOwnerInBetween) {
  const PlanPtr plan = AllOnB();
  ASSERT_TRUE(mover_->Start(7, plan).ok());
  EXPECT_THAT(nodes_.Await(1),
              ElementsAre("load b in term 7 within 9s: layer 1 slice 0/1 experts 0,1 layer 2 "
                          "slice 0/1 experts 0"));
  nodes_.Set({{"a", {{1, 0}, {1, 1}, {2, 0}}}, {"b", {{1, 0}, {1, 1}, {2, 0}}}});
  mover_->OnNodesChanged();
  EXPECT_EQ(mover_->progress().phase, MovePhase::kLoading);
  nodes_.AnswerLoad(internal::v1::LoadExpertsResponse());
  const auto [id, switched_to] = AwaitSwitch();
  EXPECT_EQ(switched_to, plan);
  EXPECT_EQ(mover_->in_force(), nullptr);
  EXPECT_EQ(mover_->Start(7, plan).code(), absl::StatusCode::kFailedPrecondition);
  mover_->Confirm(id);
  EXPECT_THAT(nodes_.Await(2).back(), HasSubstr("unload a in term 7"));
  nodes_.Set({{"a", {}}, {"b", {{1, 0}, {1, 1}, {2, 0}}}});
  nodes_.AnswerUnload(internal::v1::UnloadExpertsResponse());
  EXPECT_TRUE(AwaitEnd().ok());
  EXPECT_EQ(mover_->in_force(), plan);
  EXPECT_EQ(mover_->progress().moves_completed, 1u);
}

TEST_F(PlacementMoverTest, TimeAloneBringsTheNextAttempt) {
  ASSERT_TRUE(mover_->Start(1, AllOnB()).ok());
  nodes_.Await(1);
  nodes_.AnswerLoad(absl::UnavailableError("lost"));
  clock_.AwaitWaiters(1);
  EXPECT_EQ(nodes_.Await(1).size(), 1u);
  while (nodes_.Await(1).size() < 2) {
    clock_.Advance(absl::Seconds(1));
    std::this_thread::yield();
  }
  EXPECT_EQ(nodes_.Await(2)[0], nodes_.Await(2)[1]);
  EXPECT_EQ(mover_->progress().last_error.code(), absl::StatusCode::kUnavailable);
}

TEST_F(PlacementMoverTest, AnAnswerThatComesAfterItsEndDoesNothing) {
  ASSERT_TRUE(mover_->Start(1, AllOnB()).ok());
  nodes_.Await(1);
  mover_.reset();
  nodes_.AnswerLoad(internal::v1::LoadExpertsResponse());
  absl::MutexLock lock(&mutex_);
  EXPECT_FALSE(switch_.has_value());
}

TEST_F(PlacementMoverTest, AMoveIsTakenBackOnRequest) {
  ASSERT_TRUE(mover_->Start(1, AllOnB()).ok());
  nodes_.Await(1);
  ASSERT_TRUE(mover_->Abort(absl::CancelledError("by an operator")).ok());
  nodes_.Set({{"a", {{1, 0}, {1, 1}, {2, 0}}}, {"b", {{1, 0}, {1, 1}, {2, 0}}}});
  nodes_.AnswerLoad(internal::v1::LoadExpertsResponse());
  EXPECT_THAT(nodes_.Await(2).back(), HasSubstr("unload b"));
  nodes_.Set({{"a", {{1, 0}, {1, 1}, {2, 0}}}, {"b", {}}});
  nodes_.AnswerUnload(internal::v1::UnloadExpertsResponse());
  EXPECT_EQ(AwaitEnd(), absl::CancelledError("by an operator"));
}

}  // namespace
}  // namespace expertmesh::moves
