// What becomes of a move when nodes die, refuse or lie, and when it is taken back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/wire/error_reason.h"
#include "router_service/moves/placement_move.h"
#include "tests/unit/router_service/moves/sim_mesh.h"

namespace expertmesh::moves {
namespace {

using balance::PlacementPlan;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr ExpertKey kFirst{1, 0};
constexpr ExpertKey kSecond{1, 1};

// Two experts of one layer: on node a at first, then one on b and one on c.
class PlacementMoveFailureTest : public testing::Test {
 protected:
  PlacementMoveFailureTest() {
    mesh_.AddNode("a", {kFirst, kSecond});
    mesh_.AddNode("b", {});
    mesh_.AddNode("c", {});
  }

  static MoverOptions Options() {
    MoverOptions options;
    options.bytes_per_second = 0;
    options.node_bytes_per_second = 0;
    return options;
  }
  static PlacementPlan OnA() { return {{"a", "b", "c"}, {{1, {{{0, 1.0f}}, {{0, 1.0f}}}}}}; }
  static PlacementPlan OnBAndC() { return {{"a", "b", "c"}, {{1, {{{1, 1.0f}}, {{2, 1.0f}}}}}}; }

  void ExpectMoved() {
    EXPECT_TRUE(mesh_.outcomes.front().status.ok()) << mesh_.outcomes.front().status;
    EXPECT_THAT(mesh_.held("a"), IsEmpty());
    EXPECT_THAT(mesh_.held("b"), ElementsAre(kFirst));
    EXPECT_THAT(mesh_.held("c"), ElementsAre(kSecond));
  }
  void ExpectAsBefore(absl::StatusCode why) {
    EXPECT_EQ(mesh_.outcomes.front().status.code(), why) << mesh_.outcomes.front().status;
    EXPECT_THAT(mesh_.held("a"), UnorderedElementsAre(kFirst, kSecond));
    EXPECT_THAT(mesh_.held("b"), IsEmpty());
    EXPECT_EQ(mesh_.outcomes.front().in_force, before_);
    EXPECT_THAT(mesh_.followed(), ElementsAre(before_));
  }

  SimMesh mesh_{Options(), {{1, 7}, {2, 7}}};
  PlanPtr before_;
};

TEST_F(PlacementMoveFailureTest, ANodeThatRestartsWhileItLoadsIsAskedAgain) {
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  mesh_.Advance();
  mesh_.Kill("b");
  mesh_.Advance();
  mesh_.Advance();
  EXPECT_THAT(mesh_.move().progress(mesh_.now()).waits_for,
              HasSubstr("node b to be ready: killed"));
  mesh_.Restart("b");
  ASSERT_TRUE(mesh_.Run());
  ExpectMoved();
}

TEST_F(PlacementMoveFailureTest, ANodeThatStaysAwayWhileOthersLoadedUndoesTheMove) {
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  mesh_.Kill("c");
  ASSERT_TRUE(mesh_.Run());
  ExpectAsBefore(absl::StatusCode::kUnavailable);
  EXPECT_THAT(mesh_.log, ElementsAre("load b 1/0", "unload b 1/0", "end UNAVAILABLE"));
  EXPECT_THAT(std::string(mesh_.outcomes[0].status.message()), HasSubstr("node c is not ready"));
  EXPECT_EQ(mesh_.move().progress(mesh_.now()).moves_failed, 1u);
}

TEST_F(PlacementMoveFailureTest, ANodeOfThePlanThatDiesOnceRoutersFollowItKeepsOldCopiesAlive) {
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.RunUntil([this] { return mesh_.phase() == MovePhase::kSwitching; }));
  mesh_.Kill("b");
  ASSERT_TRUE(mesh_.Run());
  EXPECT_TRUE(mesh_.outcomes.front().status.ok());
  // What c has is let go of; the only other copy of what b had is not.
  EXPECT_THAT(mesh_.held("a"), ElementsAre(kFirst));
  mesh_.Restart("b");
  ASSERT_TRUE(mesh_.RunUntil([this] { return mesh_.held("a").empty(); }));
  EXPECT_THAT(mesh_.held("b"), ElementsAre(kFirst));
}

TEST_F(PlacementMoveFailureTest, ANodeThatDrainsIsNotAwaitedForTheCopiesThatItKeeps) {
  mesh_.Drain("a");
  const PlacementPlan plan = {{"a", "b", "c"}, {{1, {{{0, 1.0f}}, {{0, 0.5f}, {2, 0.5f}}}}}};
  const absl::Time begin = mesh_.now();
  ASSERT_TRUE(mesh_.Start(plan).ok());
  EXPECT_EQ(mesh_.move().progress(begin).copies_all, 1u);
  ASSERT_TRUE(mesh_.Run());
  EXPECT_THAT(mesh_.log, ElementsAre("load c 1/1", "switch", "confirm", "end OK"));
  EXPECT_LT(mesh_.now() - begin, Options().patience);
  // One that is to get a copy is.
  mesh_.Drain("b");
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.RunUntil([this] { return mesh_.outcomes.size() == 2; }));
  EXPECT_THAT(std::string(mesh_.outcomes[1].status.message()),
              HasSubstr("node b is not ready for 30s: drains"));
}

TEST_F(PlacementMoveFailureTest, WhatANodeHoldsThatCannotBeMovedTakesRoomToo) {
  NodeState small;
  small.node_id = "small";
  small.ready = true;
  small.held = std::make_shared<const HeldExperts>(HeldExperts{kFirst});
  small.weights_bytes = 300;  // Its shared experts have 200 of it.
  small.other_units = 14;
  small.limit_bytes = 350;
  const PlacementPlan plan = {{"small"}, {{1, {{{0, 1.0f}}, {{0, 1.0f}}}}}};
  PlacementMove move(Options(), {{1, 7}});
  EXPECT_THAT(
      std::string(
          move.Start(std::make_shared<const PlacementPlan>(plan), mesh_.now(), {small}).message()),
      HasSubstr("node small would hold about 400 bytes, and its limit is 350"));
  small.limit_bytes = 400;
  EXPECT_TRUE(move.Start(std::make_shared<const PlacementPlan>(plan), mesh_.now(), {small}).ok());
}

TEST_F(PlacementMoveFailureTest, ALoadThatIsRefusedUndoesTheMoveAndSaysWhy) {
  mesh_.AnswerNext("c", 1, absl::NotFoundError("model-00003.safetensors is not there"));
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.Run());
  ExpectAsBefore(absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(mesh_.outcomes[0].status.message()),
              testing::AllOf(HasSubstr("node c"), HasSubstr("model-00003")));
  EXPECT_EQ(mesh_.move().progress(mesh_.now()).last_error, mesh_.outcomes[0].status);
}

TEST_F(PlacementMoveFailureTest, AnswersThatAreLostAreNoFailureUntilThereAreTooMany) {
  const absl::Status lost = absl::UnavailableError("lost");
  mesh_.AnswerNext("b", 3, lost);
  mesh_.AnswerNext("c", 1, lost, /*does_it=*/true);
  mesh_.AnswerNext("a", 2, lost);
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.Run());
  ExpectMoved();
  EXPECT_EQ(std::count(mesh_.log.begin(), mesh_.log.end(), "load b 1/0"), 4);
  EXPECT_EQ(std::count(mesh_.log.begin(), mesh_.log.end(), "load c 1/1"), 1);
}

TEST_F(PlacementMoveFailureTest, ANodeThatNeverAnswersUndoesTheMove) {
  mesh_.AnswerNext("b", 1000, absl::DeadlineExceededError("too slow"));
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.Run());
  ExpectAsBefore(absl::StatusCode::kDeadlineExceeded);
  EXPECT_LE(std::count(mesh_.log.begin(), mesh_.log.end(), "load b 1/0"), 6);
}

TEST_F(PlacementMoveFailureTest, ANodeThatSaysItLoadedAndDoesNotOfferItUndoesTheMove) {
  mesh_.AnswerNext("b", 1, absl::OkStatus());
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.Run());
  ExpectAsBefore(absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(mesh_.outcomes[0].status.message()), HasSubstr("does not say so"));
}

TEST_F(PlacementMoveFailureTest, AnAuthorityOfThePastStopsAndUndoesNothing) {
  mesh_.AnswerNext("c", 1, ErrorOf(v1::ERROR_REASON_TERM_PASSED, "term is 1"));
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.Run());
  EXPECT_THAT(mesh_.log, ElementsAre("load b 1/0", "load c 1/1", "end FAILED_PRECONDITION"));
  EXPECT_TRUE(mesh_.outcomes[0].fenced);
  EXPECT_TRUE(mesh_.Holds("b", kFirst));
  EXPECT_EQ(mesh_.phase(), MovePhase::kIdle);
}

TEST_F(PlacementMoveFailureTest, AMoveThatIsTakenBackWhileItLoadsIsUndone) {
  mesh_.Adopt(OnA());
  before_ = mesh_.move().in_force();
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  mesh_.Advance();
  ASSERT_TRUE(mesh_.move().Abort(absl::CancelledError("by an operator")).ok());
  ASSERT_TRUE(mesh_.Run());
  ExpectAsBefore(absl::StatusCode::kCancelled);
  EXPECT_THAT(mesh_.held("c"), IsEmpty());
}

TEST_F(PlacementMoveFailureTest, AMoveThatIsTakenBackWhileRoutersSwitchIsSwitchedBackFirst) {
  mesh_.Adopt(OnA());
  before_ = mesh_.move().in_force();
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.RunUntil([this] { return mesh_.phase() == MovePhase::kSwitching; }));
  ASSERT_TRUE(mesh_.move().Abort(absl::CancelledError("by an operator")).ok());
  mesh_.HoldConfirmations(true);
  for (int i = 0; i < 10; ++i) {
    mesh_.Advance();
  }
  EXPECT_EQ(mesh_.phase(), MovePhase::kSwitchingBack);
  EXPECT_EQ(mesh_.log.back(), "switch");
  mesh_.HoldConfirmations(false);
  ASSERT_TRUE(mesh_.Run());
  ExpectAsBefore(absl::StatusCode::kCancelled);
  EXPECT_THAT(mesh_.held("c"), IsEmpty());
}

TEST_F(PlacementMoveFailureTest, WhatRoutersFollowIsNotTakenBack) {
  EXPECT_EQ(mesh_.move().Abort(absl::CancelledError("")).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.RunUntil([this] { return mesh_.phase() == MovePhase::kUnloading; }));
  EXPECT_EQ(mesh_.move().Abort(absl::CancelledError("")).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(mesh_.Run());
  ExpectMoved();
}

TEST_F(PlacementMoveFailureTest, UndoingLoadsAgainWhatHadToGo) {
  SimMesh mesh(Options(), {{1, 7}, {2, 7}});
  mesh.AddNode("a", {kFirst}, 2 * kExpertBytes);
  mesh.AddNode("b", {kFirst}, kExpertBytes);
  mesh.AddNode("c", {kSecond});
  // Routers use what is there, so that no repair brings it back. b lets go of the first to load the
  // second, and a is refused.
  mesh.AnswerNext("a", 1, absl::DataLossError("the file is damaged"));
  const PlacementPlan after{{"a", "b", "c"}, {{1, {{{0, 1.0f}}, {{0, 0.5f}, {1, 0.5f}}}}}};
  ASSERT_TRUE(mesh.Start(after).ok());
  ASSERT_TRUE(mesh.Run());
  EXPECT_EQ(mesh.outcomes[0].status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(std::count(mesh.log.begin(), mesh.log.end(), "unload b 1/0"), 1);
  EXPECT_THAT(mesh.held("a"), ElementsAre(kFirst));
  EXPECT_THAT(mesh.held("b"), ElementsAre(kFirst));
  EXPECT_THAT(mesh.held("c"), ElementsAre(kSecond));
}

TEST_F(PlacementMoveFailureTest, ANodeThatRestartsWithOtherExpertsIsBroughtBackToThePlan) {
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  ASSERT_TRUE(mesh_.Run());
  ExpectMoved();
  mesh_.log.clear();
  for (const char* const node : {"a", "b"}) {
    mesh_.Kill(node);
    mesh_.Advance();
    mesh_.Restart(node);  // With what its flags say: a both, b nothing.
  }
  ASSERT_TRUE(mesh_.RunUntil([this] {
    return mesh_.held("a").empty() && mesh_.Holds("b", kFirst) && mesh_.phase() == MovePhase::kIdle;
  }));
  EXPECT_THAT(mesh_.log, testing::Contains("end OK repair"));
  EXPECT_THAT(mesh_.log, testing::Not(testing::Contains("switch")));
  EXPECT_GE(mesh_.move().progress(mesh_.now()).repairs_completed, 1u);
}

TEST_F(PlacementMoveFailureTest, ARepairThatFailsIsTriedLessAndLessOften) {
  mesh_.Adopt(OnBAndC());
  mesh_.AnswerNext("b", 1000, absl::NotFoundError("no such file"));
  const absl::Time begin = mesh_.now();
  while (mesh_.now() - begin < absl::Minutes(10)) {
    mesh_.Advance();
  }
  const auto attempts = std::count(mesh_.log.begin(), mesh_.log.end(), "load b 1/0");
  EXPECT_GE(attempts, 10);
  EXPECT_LE(attempts, 20);
  EXPECT_TRUE(mesh_.Holds("a", kFirst));
  mesh_.AnswerNext("b", 0, absl::OkStatus());
  ASSERT_TRUE(mesh_.RunUntil([this] { return mesh_.held("a").empty(); }));
}

TEST_F(PlacementMoveFailureTest, WhoResignsForgetsEverything) {
  ASSERT_TRUE(mesh_.Start(OnBAndC()).ok());
  mesh_.Advance();
  mesh_.move().Resign();
  for (int i = 0; i < 100; ++i) {
    mesh_.Advance();
  }
  EXPECT_THAT(mesh_.log, ElementsAre("load b 1/0", "load c 1/1"));
  EXPECT_EQ(mesh_.move().in_force(), nullptr);
  EXPECT_TRUE(mesh_.move().Adopt(nullptr).ok());
}

}  // namespace
}  // namespace expertmesh::moves
