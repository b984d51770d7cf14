#include "client/cpp/command/move_end.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace expertmesh::command {
namespace {

using testing::HasSubstr;

client::PlacementMoves Moves(const std::string& phase, uint64_t completed, uint64_t failed,
                             const std::string& last_error = "") {
  client::PlacementMoves moves;
  moves.phase = phase;
  moves.moves_completed = completed;
  moves.moves_failed = failed;
  moves.last_error = last_error;
  return moves;
}

TEST(MoveEndTest, AMoveIsOverOnceItIsCounted) {
  MoveEnd end(Moves("idle", 4, 2), Moves("loading", 4, 2));
  for (const char* phase : {"loading", "switching", "unloading"}) {
    EXPECT_EQ(end.After(Moves(phase, 4, 2)), std::nullopt) << phase;
  }
  EXPECT_EQ(end.After(Moves("idle", 5, 2)), absl::OkStatus());
}

TEST(MoveEndTest, ARepairAfterwardsDoesNotHideTheEnd) {
  MoveEnd end(Moves("idle", 4, 2), Moves("loading", 4, 2));
  EXPECT_EQ(end.After(Moves("loading", 5, 2)), absl::OkStatus());
}

TEST(MoveEndTest, AMoveThatIsOverInTheAnswerIsOver) {
  const client::PlacementMoves answer = Moves("idle", 5, 2);
  EXPECT_EQ(MoveEnd(Moves("idle", 4, 2), answer).After(answer), absl::OkStatus());
}

TEST(MoveEndTest, TheEndOfTheMoveBeforeIsNotTaken) {
  const client::PlacementMoves answer = Moves("loading", 5, 2);
  MoveEnd end(Moves("unloading", 4, 2), answer);
  EXPECT_EQ(end.After(answer), std::nullopt);
  EXPECT_EQ(end.After(Moves("idle", 6, 2)), absl::OkStatus());
}

TEST(MoveEndTest, AMoveThatTakesARepairsPlaceMayBeOverInTheAnswer) {
  const client::PlacementMoves answer = Moves("idle", 5, 2);
  EXPECT_EQ(MoveEnd(Moves("loading", 4, 2), answer).After(answer), absl::OkStatus());
}

TEST(MoveEndTest, AMoveThatIsUnderWayMayBeUndoneInTheAnswer) {
  MoveEnd end(Moves("loading", 4, 2));
  EXPECT_EQ(end.After(Moves("undoing", 4, 2)), std::nullopt);
  EXPECT_EQ(end.After(Moves("idle", 4, 3)).value_or(absl::OkStatus()).code(),
            absl::StatusCode::kAborted);
  // It has begun to bring nodes back to the plan.
  EXPECT_EQ(MoveEnd(Moves("loading", 4, 2))
                .After(Moves("loading", 4, 3))
                .value_or(absl::OkStatus())
                .code(),
            absl::StatusCode::kAborted);
}

TEST(MoveEndTest, AMoveThatWasUndoneSaysWhy) {
  MoveEnd end(Moves("idle", 4, 2), Moves("loading", 4, 2));
  EXPECT_EQ(end.After(Moves("undoing", 4, 2, "node b went away")), std::nullopt);
  // A repair has begun, which begins without an error.
  const auto ended = end.After(Moves("loading", 4, 3));
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(ended->message()), HasSubstr("node b went away"));
}

TEST(MoveEndTest, ARouterThatKnowsNothingOfItIsNotWaitedFor) {
  MoveEnd end(Moves("idle", 0, 0), Moves("loading", 0, 0));
  EXPECT_EQ(end.After(Moves("loading", 0, 0)), std::nullopt);
  EXPECT_EQ(end.After(Moves("idle", 0, 0)).value_or(absl::OkStatus()).code(),
            absl::StatusCode::kUnknown);
  // Its counts begin again, and it is at work on something else.
  MoveEnd other(Moves("idle", 4, 0), Moves("loading", 4, 0));
  EXPECT_EQ(other.After(Moves("loading", 0, 0)).value_or(absl::OkStatus()).code(),
            absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace expertmesh::command
