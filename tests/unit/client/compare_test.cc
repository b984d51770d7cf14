#include "client/cpp/command/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace expertmesh {
namespace {

// Two tokens of width 2 with two experts each.
ReferenceOutput Reference() {
  ReferenceOutput reference;
  reference.output = {3, 4, 0, 10};
  reference.expert_ids = {0, 1, 2, 3};
  reference.weights = {1, 1, 1, 1};
  reference.margins = {0.5f, 0.5f};
  return reference;
}

Sample Same() {
  Sample sample;
  sample.tokens = 2;
  sample.hidden = {1, 1, 1, 1};
  sample.output = {3, 4, 0, 10};
  sample.expert_ids = {0, 1, 2, 3};
  return sample;
}

TEST(CompareTest, NothingDiffers) {
  const Agreement agreement = Compare(Same(), Reference());
  EXPECT_EQ(agreement.worst_error, 0);
  EXPECT_EQ(agreement.same_experts, 2u);
  EXPECT_TRUE(agreement.Within(0));
}

TEST(CompareTest, ErrorIsRelativeToEachTokensNorm) {
  Sample sample = Same();
  sample.output = {3, 4.5f, 0, 10.5f};
  const Agreement agreement = Compare(sample, Reference());
  EXPECT_DOUBLE_EQ(agreement.worst_error, 0.1);
  EXPECT_TRUE(agreement.Within(0.11));
  EXPECT_FALSE(agreement.Within(0.09));
}

TEST(CompareTest, NotANumberIsInfinitelyWrong) {
  Sample sample = Same();
  sample.output[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(Compare(sample, Reference()).Within(1e9));
  sample = Same();
  ReferenceOutput reference = Reference();
  reference.output = {0, 0, 0, 10};
  EXPECT_TRUE(std::isinf(Compare(sample, reference).worst_error));
}

TEST(CompareTest, OrderOfExpertsDoesNotMatter) {
  Sample sample = Same();
  sample.expert_ids = {1, 0, 3, 2};
  EXPECT_EQ(Compare(sample, Reference()).same_experts, 2u);
}

TEST(CompareTest, OtherExpertsAreWrongHoweverSmallTheError) {
  Sample sample = Same();
  sample.expert_ids = {0, 5, 2, 3};
  const Agreement agreement = Compare(sample, Reference());
  EXPECT_EQ(agreement.other_experts, 1u);
  EXPECT_EQ(agreement.same_experts, 1u);
  EXPECT_FALSE(agreement.Within(1));
}

TEST(CompareTest, OtherExpertsAreFineWhenTheChoiceIsATie) {
  Sample sample = Same();
  sample.expert_ids = {0, 5, 2, 3};
  sample.output[0] = 100;
  ReferenceOutput reference = Reference();
  reference.margins[0] = 0;
  const Agreement agreement = Compare(sample, reference);
  EXPECT_EQ(agreement.ties, 1u);
  EXPECT_TRUE(agreement.Within(0));
}

TEST(CompareTest, AnswersWithoutRoutingCannotAgree) {
  Sample sample = Same();
  sample.expert_ids.clear();
  EXPECT_FALSE(Compare(sample, Reference()).Within(1));
}

TEST(CompareTest, SampleTakesTheFirstTokensAndChecksTheShape) {
  const client::Matrix request = client::Matrix::Take(2, 2, {1, 2, 3, 4});
  client::ForwardResult answer;
  answer.output = client::Matrix::Take(2, 2, {5, 6, 7, 8});
  answer.routing.experts_per_token = 2;
  answer.routing.expert_ids = {0, 1, 2, 3};
  Sample sample;
  ASSERT_TRUE(sample.Add(request, answer, 1).ok());
  ASSERT_TRUE(sample.Add(request, answer, 9).ok());
  EXPECT_EQ(sample.tokens, 3u);
  EXPECT_THAT(sample.hidden, testing::ElementsAre(1, 2, 1, 2, 3, 4));
  EXPECT_THAT(sample.output, testing::ElementsAre(5, 6, 5, 6, 7, 8));
  EXPECT_THAT(sample.expert_ids, testing::ElementsAre(0, 1, 0, 1, 2, 3));
  answer.output = client::Matrix::Take(1, 2, {5, 6});
  EXPECT_EQ(sample.Add(request, answer, 1).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace expertmesh
