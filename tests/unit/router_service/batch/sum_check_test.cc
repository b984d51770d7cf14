#include "router_service/batch/sum_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <vector>

namespace expertmesh::batch {
namespace {

using ::testing::HasSubstr;

// Two tokens; expert 1 in two slices, the others whole.
class SumCheckTest : public testing::Test {
 protected:
  SumCheckTest() {
    replicas_ = {{{{0, 1}}}, {{{0}, {1}}}, {{{1}}}};
    AddPart({0, {0, 1}, {0, 2, 3}, {0, 1, 1}, {.5f, .25f, kWeight}});
    AddPart({1, {0, 1}, {0, 1, 3}, {1, 1, 2}, {.25f, kWeight, .125f}});
  }

  void AddPart(plan::NodePlan plan) {
    parts_.push_back(std::make_unique<BatchPart>());
    parts_.back()->plan = std::move(plan);
  }
  absl::Status Check(uint32_t unwanted = 99) {
    std::vector<BatchPart*> parts;
    for (const std::unique_ptr<BatchPart>& part : parts_) {
      parts.push_back(part.get());
    }
    return check_.Run(routed_, replicas_, parts,
                      [unwanted](uint32_t row) { return row != unwanted; });
  }
  plan::NodePlan& plan(size_t part) { return parts_[part]->plan; }

  static constexpr float kWeight = std::numeric_limits<float>::quiet_NaN();  // As tokens of NaN have it.
  const gate::RoutedTokens routed_{{0, 2, 4}, {0, 1, 2, 1}, {.5f, .25f, .125f, kWeight}};
  std::vector<mesh::ExpertReplicas> replicas_;
  std::vector<std::unique_ptr<BatchPart>> parts_;
  SumCheck check_;
};

TEST_F(SumCheckTest, EveryAssignmentOnceIsRightHoweverItWasSpread) { EXPECT_TRUE(Check().ok()); }

TEST_F(SumCheckTest, TwoReplicasOfOneExpertAreOneTooMany) {
  AddPart({2, {0}, {0, 1}, {0}, {.5f}});
  EXPECT_THAT(Check().message(), HasSubstr("expert 0 of token 0 would be summed once more"));
  EXPECT_TRUE(Check(/*unwanted=*/0).ok()) << "no request waits for that token";
}

TEST_F(SumCheckTest, WhatIsNowhereIsNamed) {
  parts_.pop_back();
  EXPECT_THAT(Check().message(), HasSubstr("expert 1 of token 0 is not in the sum"));
}

TEST_F(SumCheckTest, AnotherWeightIsAnotherAssignment) {
  plan(1).expert_weights[2] = .375f;
  EXPECT_THAT(Check().message(), HasSubstr("expert 2 of token 1 is not in the sum"));
}

TEST_F(SumCheckTest, AnotherTokenIsAnotherAssignment) {
  plan(0).rows = {0, 0};
  EXPECT_FALSE(Check().ok());
}

}  // namespace
}  // namespace expertmesh::batch
