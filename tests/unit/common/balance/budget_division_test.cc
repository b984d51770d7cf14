#include "common/balance/budget_division.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::balance {
namespace {

using ::testing::ElementsAre;

BudgetDivision TwoLayers(uint64_t budget) {
  BudgetDivision division(budget);
  division.AddChoice(0, 10, 1, 100);
  division.AddChoice(0, 10, 2, 95);
  division.AddChoice(0, 10, 4, 40);
  division.AddChoice(1, 10, 0, 80);
  division.AddChoice(1, 10, 1, 60);
  return division;
}

TEST(BudgetDivisionTest, StepsThatGainMostForTheirBytesComeFirst) {
  EXPECT_EQ(TwoLayers(0).LeastBytes(), 10u);
  EXPECT_THAT(TwoLayers(10).Divide(), ElementsAre(0, 0));
  // 5 or 20 for ten bytes.
  EXPECT_THAT(TwoLayers(29).Divide(), ElementsAre(0, 1));
  // 60 for thirty bytes, or 20 for ten: as much for each, and both cannot be had.
  EXPECT_THAT(TwoLayers(49).Divide(), ElementsAre(2, 0));
  EXPECT_THAT(TwoLayers(50).Divide(), ElementsAre(2, 1));
}

TEST(BudgetDivisionTest, WhatIsLeftIsTold) {
  BudgetDivision division = TwoLayers(29);
  division.Divide();
  EXPECT_EQ(division.left(), 9u);
}

// A worse level for more loads is no reason to load.
TEST(BudgetDivisionTest, WhatGainsNothingIsNotTaken) {
  BudgetDivision division(1000);
  division.AddChoice(0, 1, 0, 7);
  division.AddChoice(0, 1, 1, 7);
  division.AddChoice(0, 1, 2, 8);
  EXPECT_THAT(division.Divide(), ElementsAre(0));
}

}  // namespace
}  // namespace expertmesh::balance
