#include "router_service/moves/compiled_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::moves {
namespace {

using balance::PlacementPlan;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(CompiledPlanTest, AnswersWhoHoldsWhat) {
  const auto plan = std::make_shared<const PlacementPlan>(PlacementPlan{
      {"b", "a", "idle"}, {{2, {{{0, 0.25f}, {1, 0.75f}}, {{1, 1.0f}}}}, {5, {{{0, 1.0f}}}}}});
  const auto compiled = CompiledPlan::Make(plan);
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  EXPECT_EQ((*compiled)->plan(), plan);
  EXPECT_TRUE((*compiled)->Has("b", {2, 0}));
  EXPECT_FALSE((*compiled)->Has("b", {2, 1}));
  EXPECT_FALSE((*compiled)->Has("b", {3, 0}));
  EXPECT_THAT((*compiled)->On("b"), ElementsAre(ExpertKey{2, 0}, ExpertKey{5, 0}));
  EXPECT_THAT((*compiled)->On("idle"), IsEmpty());
  EXPECT_TRUE((*compiled)->HasNode("idle"));
  EXPECT_FALSE((*compiled)->HasNode("c"));
  EXPECT_TRUE((*compiled)->HasLayer(5));
  EXPECT_FALSE((*compiled)->HasLayer(3));
  EXPECT_EQ((*compiled)->CopiesOf({2, 2}), nullptr);
  EXPECT_THAT(*(*compiled)->CopiesOf({2, 0}),
              ElementsAre(NamedCopy{"b", 0.25f}, NamedCopy{"a", 0.75f}));
}

TEST(CompiledPlanTest, APlanMadeOfCopiesIsOneByItsOwnRules) {
  CompiledPlan::Copies copies;
  copies[{1, 0}] = {{"z", 0.5f}, {"a", 0.5f}};
  copies[{1, 1}] = {{"m", 1.0f}};
  copies[{4, 0}] = {{"z", 1.0f}};
  const CompiledPlanPtr made = CompiledPlan::FromCopies(copies);
  EXPECT_EQ(made->copies(), copies);
  // By node, ascending.
  EXPECT_EQ(*made->plan(),
            (PlacementPlan{{"a", "m", "z"},
                           {{1, {{{0, 0.5f}, {2, 0.5f}}, {{1, 1.0f}}}}, {4, {{{2, 1.0f}}}}}}));
  EXPECT_TRUE(CompiledPlan::Make(made->plan()).ok());
}

}  // namespace
}  // namespace expertmesh::moves
