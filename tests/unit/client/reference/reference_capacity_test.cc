// Routing in which the tokens of a group compete, on groups small enough to follow by hand.
#include "client/cpp/reference/reference_capacity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "client/cpp/reference/reference_routing.h"

namespace expertmesh::reference {
namespace {

using testing::ElementsAre;
using testing::FloatEq;
using testing::IsEmpty;

// Scores are the logits themselves.
RoutingOptions Options(uint32_t experts, uint32_t top_k, uint32_t capacity, DropPolicy drop) {
  RoutingOptions options;
  options.num_experts = experts;
  options.top_k = top_k;
  options.score = ScoreFunction::kIdentity;
  options.capacity.tokens = capacity;
  options.capacity.drop = drop;
  return options;
}

std::vector<ReferenceRouting> Route(const RoutingOptions& options,
                                    const std::vector<float>& logits) {
  ReferenceGroup group;
  group.logits = logits;
  return RouteReference(options, group);
}

std::vector<std::vector<uint32_t>> Ids(const std::vector<ReferenceRouting>& routed) {
  std::vector<std::vector<uint32_t>> ids;
  for (const ReferenceRouting& token : routed) {
    ids.push_back(token.expert_ids);
  }
  return ids;
}

// All three tokens want expert 0; token 2 wants it most, and 1 more than 0.
const std::vector<float> kOneFavourite = {5, 1, 2,  //
                                          6, 4, 3,  //
                                          7, 1, 3};

TEST(ReferenceCapacityTest, Position) {
  const auto routed = Route(Options(3, 1, 2, DropPolicy::kPosition), kOneFavourite);
  EXPECT_THAT(Ids(routed), ElementsAre(ElementsAre(0), ElementsAre(0), IsEmpty()));
  EXPECT_THAT(routed[2].dropped, ElementsAre(0));
  EXPECT_THAT(routed[0].dropped, IsEmpty());
}

TEST(ReferenceCapacityTest, FirstChoicesBeforeSecondOnes) {
  // Token 0 has expert 1 as its second choice, token 1 as its first.
  const std::vector<float> logits = {9, 8, 0,  //
                                     0, 2, 1};
  EXPECT_THAT(Ids(Route(Options(3, 2, 1, DropPolicy::kPosition), logits)),
              ElementsAre(ElementsAre(0), ElementsAre(1, 2)));
  // By weight the second choice of token 0 wins.
  EXPECT_THAT(Ids(Route(Options(3, 2, 1, DropPolicy::kScore), logits)),
              ElementsAre(ElementsAre(0, 1), ElementsAre(2)));
}

TEST(ReferenceCapacityTest, BatchPrioritised) {
  const auto routed = Route(Options(3, 1, 2, DropPolicy::kBatchPrioritised), kOneFavourite);
  EXPECT_THAT(Ids(routed), ElementsAre(IsEmpty(), ElementsAre(0), ElementsAre(0)));
  // The order follows scores before they are renormalised: afterwards all are 1.
  RoutingOptions renormalised = Options(3, 1, 1, DropPolicy::kBatchPrioritised);
  renormalised.renormalise = Renormalise::kSum;
  EXPECT_THAT(Ids(Route(renormalised, kOneFavourite)),
              ElementsAre(IsEmpty(), IsEmpty(), ElementsAre(0)));
}

TEST(ReferenceCapacityTest, BatchPrioritisedStillPutsFirstChoicesFirst) {
  // Token 0's best is larger, but expert 1 is its second choice.
  const std::vector<float> logits = {9, 8, 0,  //
                                     0, 2, 1};
  EXPECT_THAT(Ids(Route(Options(3, 2, 1, DropPolicy::kBatchPrioritised), logits)),
              ElementsAre(ElementsAre(0), ElementsAre(1, 2)));
}

TEST(ReferenceCapacityTest, NextBest) {
  const auto routed = Route(Options(3, 1, 1, DropPolicy::kNextBest), kOneFavourite);
  // Token 1 goes on to expert 1; token 2 likes 2 better than 1.
  EXPECT_THAT(Ids(routed), ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2)));
  EXPECT_THAT(routed[1].weights, ElementsAre(4.0f));
  EXPECT_THAT(routed[1].dropped, ElementsAre(0));
  // Two experts cannot serve three tokens.
  const auto full = Route(Options(2, 1, 1, DropPolicy::kNextBest), {3, 1, 4, 2, 5, 3});
  EXPECT_THAT(Ids(full), ElementsAre(ElementsAre(0), ElementsAre(1), IsEmpty()));
}

TEST(ReferenceCapacityTest, RenormaliseBeforeOrAfterDropping) {
  RoutingOptions options = Options(3, 2, 1, DropPolicy::kPosition);
  options.renormalise = Renormalise::kSum;
  const std::vector<float> logits = {9, 3, 0,  //
                                     0, 2, 1};
  EXPECT_THAT(Route(options, logits)[0].weights, ElementsAre(FloatEq(0.75f)));
  options.renormalise_after_drop = true;
  EXPECT_THAT(Route(options, logits)[0].weights, ElementsAre(FloatEq(1.0f)));
}

TEST(ReferenceCapacityTest, TheFactorCountsAsItWasWritten) {
  RoutingOptions options = Options(8, 2, 0, DropPolicy::kPosition);
  EXPECT_EQ(CapacityOf(options, 100), 100u);
  options.capacity.factor = 1.25f;
  EXPECT_EQ(CapacityOf(options, 16), 5u);  // 1.25 * 2 * 16 / 8
  EXPECT_EQ(CapacityOf(options, 17), 6u);  // 5.3
  options.capacity.minimum = 9;
  EXPECT_EQ(CapacityOf(options, 16), 9u);
  // As a float, 1.1 is a little more.
  options = Options(10, 1, 0, DropPolicy::kPosition);
  options.capacity.factor = 1.1f;
  EXPECT_EQ(CapacityOf(options, 100), 11u);
  options.capacity.tokens = 3;
  EXPECT_EQ(CapacityOf(options, 100), 3u);
}

TEST(ReferenceCapacityTest, ExpertsChoose) {
  RoutingOptions options = Options(2, 7, 0, DropPolicy::kPosition);
  options.choice = Choice::kExpertChoice;
  options.capacity.factor = 1.0f;  // 2 of 4 tokens; top_k plays no part.
  const auto routed = Route(options, {4, 5, 3, 8, 1, 2, 7, 0});
  EXPECT_THAT(Ids(routed),
              ElementsAre(ElementsAre(1, 0), ElementsAre(1), IsEmpty(), ElementsAre(0)));
  EXPECT_THAT(routed[0].weights, ElementsAre(5.0f, 4.0f));
  // Expert 0 preferred token 0 (4) to token 1 (3).
  EXPECT_EQ(routed[2].margin, 1.0f);
}

TEST(ReferenceCapacityTest, ADecisionForOneTokenCountsForAll) {
  // The third token's choice is a tie.
  const auto routed = Route(Options(2, 1, 1, DropPolicy::kPosition), {3, 1, 4, 2, 5, 5});
  EXPECT_TRUE(routed[0].tie);
}

}  // namespace
}  // namespace expertmesh::reference
