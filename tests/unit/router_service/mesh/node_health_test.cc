// When a node is ejected, for how long, and how long its answers may take.
#include "router_service/mesh/node_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::mesh {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class NodeHealthTest : public testing::Test {
 protected:
  // One batch in `every` fails.
  void ServeFailing(int every, int batches) {
    for (int i = 0; i < batches && health_.WhyEject().empty(); ++i) {
      if (i % every == every - 1) {
        health_.Failed(NodeFault::kUnreadable);
      } else {
        health_.Served(absl::Milliseconds(1), 8);
      }
    }
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  NodeHealth health_{HealthOptions()};
};

TEST_F(NodeHealthTest, ThreeFailuresInARowAreEnough) {
  health_.Served(absl::Milliseconds(1), 8);
  health_.Failed(NodeFault::kError);
  health_.Failed(NodeFault::kError);
  EXPECT_THAT(health_.WhyEject(), IsEmpty());
  health_.Failed(NodeFault::kError);
  EXPECT_THAT(health_.WhyEject(), HasSubstr("27 % of its last batches failed"));
}

TEST_F(NodeHealthTest, SoIsAThirdOfAllAndNotATenth) {
  ServeFailing(10, 1000);
  EXPECT_THAT(health_.WhyEject(), IsEmpty());
  ServeFailing(3, 100);
  EXPECT_THAT(health_.WhyEject(), HasSubstr(TextOf(NodeFault::kUnreadable)));
}

TEST_F(NodeHealthTest, SilenceIsEnoughUntilAnAnswerComes) {
  health_.Failed(NodeFault::kSilent);
  EXPECT_THAT(health_.WhyEject(), HasSubstr("no answers"));
  health_.Served(absl::Seconds(1), 8);
  EXPECT_THAT(health_.WhyEject(), IsEmpty());
}

TEST_F(NodeHealthTest, ABusyNodeIsLeftAloneAndOneThatRefusesEverythingIsNot) {
  for (int i = 0; i < 100; ++i) {
    i % 10 == 0 ? health_.Served(absl::Milliseconds(1), 8) : health_.Refused();
  }
  EXPECT_THAT(health_.WhyEject(), IsEmpty());
  for (int i = 0; i < 16; ++i) {
    health_.Refused();
  }
  EXPECT_THAT(health_.WhyEject(), HasSubstr("refused"));
}

TEST_F(NodeHealthTest, EjectionsGrowWhileTheNodeFailsAgainAndAreForgottenLater) {
  const HealthOptions options;
  health_.Eject(now_);
  EXPECT_EQ(health_.tried_at(), now_ + options.first_ejection);
  health_.Extend(now_);
  EXPECT_EQ(health_.tried_at(), now_ + 2 * options.first_ejection);
  health_.Restore(now_);
  EXPECT_FALSE(health_.ejected());
  now_ += absl::Seconds(19);
  health_.Eject(now_);
  EXPECT_EQ(health_.tried_at(), now_ + 4 * options.first_ejection);
  for (int i = 0; i < 10; ++i) {
    health_.Extend(now_);
  }
  EXPECT_EQ(health_.tried_at(), now_ + options.longest_ejection);
  health_.Restore(now_);
  now_ += 10 * options.longest_ejection;
  health_.Eject(now_);
  EXPECT_EQ(health_.tried_at(), now_ + options.first_ejection);
}

TEST_F(NodeHealthTest, RestoringForgetsWhatWasBefore) {
  ServeFailing(1, 10);
  health_.Eject(now_);
  health_.Restore(now_);
  EXPECT_THAT(health_.WhyEject(), IsEmpty());
  health_.Failed(NodeFault::kError);
  EXPECT_THAT(health_.WhyEject(), IsEmpty());
}

TEST_F(NodeHealthTest, TheLimitFollowsThePaceOfTheMeshAndTheWorkInFlight) {
  const HealthOptions options;
  EXPECT_EQ(health_.Limit(absl::Microseconds(10), 100), options.shortest_limit);
  EXPECT_EQ(health_.Limit(absl::Microseconds(10), 1'000'000), absl::Seconds(40));
  EXPECT_EQ(health_.Limit(absl::InfiniteDuration(), 1), absl::InfiniteDuration());
}

TEST(PaceTest, LargeBatchesCountByTheirWork) {
  Pace pace;
  EXPECT_TRUE(pace.unknown());
  pace.Add(absl::Milliseconds(1), 1);
  pace.Add(absl::Seconds(1), 100'000);
  EXPECT_LT(pace.PerAssignment(), absl::Microseconds(11));
  EXPECT_GT(pace.PerAssignment(), absl::Microseconds(9));
}

TEST(PaceTest, WhatWasLongAgoIsForgotten) {
  Pace pace;
  for (int i = 0; i < 300; ++i) {
    pace.Add(absl::Seconds(1), 10);
  }
  for (int i = 0; i < 300; ++i) {
    pace.Add(absl::Milliseconds(10), 10);
  }
  EXPECT_LT(pace.PerAssignment(), absl::Microseconds(1100));
}

TEST(UsualPaceTest, IsThatOfTheBetterHalf) {
  std::vector<absl::Duration> none;
  EXPECT_EQ(UsualPace(&none), absl::InfiniteDuration());
  std::vector<absl::Duration> two = {absl::Seconds(9), absl::Seconds(1)};
  EXPECT_EQ(UsualPace(&two), absl::Seconds(1));
  std::vector<absl::Duration> four = {absl::Seconds(9), absl::Seconds(3), absl::Seconds(1),
                                      absl::Seconds(2)};
  EXPECT_EQ(UsualPace(&four), absl::Seconds(2));
}

TEST(SpeaksAgainstNodeTest, WhatANodeMaySayOfItselfDoesNot) {
  EXPECT_FALSE(SpeaksAgainstNode(absl::StatusCode::kResourceExhausted));
  EXPECT_FALSE(SpeaksAgainstNode(absl::StatusCode::kFailedPrecondition));
  EXPECT_TRUE(SpeaksAgainstNode(absl::StatusCode::kInternal));
  EXPECT_TRUE(SpeaksAgainstNode(absl::StatusCode::kPermissionDenied));
}

TEST(NodeFaultTest, EachHasANameAndAText) {
  for (const NodeFault fault : {NodeFault::kNonFinite, NodeFault::kChecksum, NodeFault::kUnreadable,
                                NodeFault::kError, NodeFault::kLate, NodeFault::kSilent}) {
    EXPECT_THAT(NameOf(fault), Not(testing::StrEq("")));
    EXPECT_THAT(TextOf(fault), HasSubstr(" "));
  }
}

}  // namespace
}  // namespace expertmesh::mesh
