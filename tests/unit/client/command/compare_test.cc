#include "client/cpp/command/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/model/routing_json.h"
#include "tests/unit/client/tiny_checkpoint.h"

namespace expertmesh::command {
namespace {

// What the reference says of two tokens of width 2 with two experts each.
struct Reference {
  std::vector<float> output = {3, 4, 0, 10};
  std::vector<reference::ReferenceRouting> routed = {Routed({0, 1}), Routed({2, 3})};

  static reference::ReferenceRouting Routed(std::vector<uint32_t> ids) {
    reference::ReferenceRouting routing;
    routing.expert_ids = std::move(ids);
    routing.weights = {0.5f, 0.25f};
    routing.margin = 0.5f;
    return routing;
  }
};

Agreement Compare(const Sample& sample, const Reference& reference) {
  return Compare(sample, reference.routed, reference.output);
}

Sample Same() {
  Sample sample;
  sample.tokens = 2;
  sample.hidden = {1, 1, 1, 1};
  sample.output = {3, 4, 0, 10};
  sample.chosen = {{{0, 1}, {0.5f, 0.25f}}, {{2, 3}, {0.5f, 0.25f}}};
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
  Reference reference;
  reference.output = {0, 0, 0, 10};
  EXPECT_TRUE(std::isinf(Compare(sample, reference).worst_error));
}

TEST(CompareTest, OrderOfExpertsDoesNotMatter) {
  Sample sample = Same();
  std::swap(sample.chosen[0].expert_ids[0], sample.chosen[0].expert_ids[1]);
  EXPECT_EQ(Compare(sample, Reference()).same_experts, 2u);
}

TEST(CompareTest, OtherExpertsAreWrongHoweverSmallTheError) {
  Sample sample = Same();
  sample.chosen[0].expert_ids = {0, 5};
  const Agreement agreement = Compare(sample, Reference());
  EXPECT_EQ(agreement.other_experts, 1u);
  EXPECT_EQ(agreement.same_experts, 1u);
  EXPECT_FALSE(agreement.Within(1));
}

TEST(CompareTest, OtherExpertsAreFineWhenTheChoiceIsATie) {
  Sample sample = Same();
  sample.chosen[0].expert_ids = {0, 5};
  sample.output[0] = 100;
  Reference reference;
  reference.routed[0].margin = 0;
  const Agreement agreement = Compare(sample, reference);
  EXPECT_EQ(agreement.ties, 1u);
  EXPECT_TRUE(agreement.Within(0));
}

TEST(CompareTest, OtherWeightsAreFineOnlyWhenADecisionIsATie) {
  Sample sample = Same();
  sample.output[0] = 100;
  sample.chosen[0].weights[0] = 0.4f;
  Reference reference;
  EXPECT_FALSE(Compare(sample, reference).Within(0.1));
  reference.routed[0].margin = 0;
  EXPECT_TRUE(Compare(sample, reference).Within(0.1));
  // With the same weights a tie excuses nothing.
  sample.chosen[0].weights[0] = 0.5f;
  EXPECT_FALSE(Compare(sample, reference).Within(0.1));
}

TEST(CompareTest, AnswersWithoutRoutingCannotAgree) {
  Sample sample = Same();
  sample.chosen.clear();
  EXPECT_FALSE(Compare(sample, Reference()).Within(1));
}

TEST(CompareTest, SampleTakesTheFirstTokensAndChecksTheShape) {
  const client::Matrix request = client::Matrix::Take(2, 2, {1, 2, 3, 4});
  client::ForwardResult answer;
  answer.output = client::Matrix::Take(2, 2, {5, 6, 7, 8});
  answer.routing.experts_per_token = 2;
  answer.routing.expert_ids = {0, 1, 2, 3};
  answer.routing.expert_weights = {0.5f, 0.25f, 0.75f, 0.125f};
  Sample sample;
  ASSERT_TRUE(sample.Add(request, answer, 1).ok());
  EXPECT_FALSE(sample.whole);
  ASSERT_TRUE(sample.Add(request, answer, 9).ok());
  EXPECT_EQ(sample.tokens, 3u);
  EXPECT_THAT(sample.hidden, testing::ElementsAre(1, 2, 1, 2, 3, 4));
  EXPECT_THAT(sample.output, testing::ElementsAre(5, 6, 5, 6, 7, 8));
  ASSERT_EQ(sample.chosen.size(), 3u);
  EXPECT_THAT(sample.chosen[1].expert_ids, testing::ElementsAre(0, 1));
  EXPECT_THAT(sample.chosen[2].expert_ids, testing::ElementsAre(2, 3));
  EXPECT_THAT(sample.chosen[2].weights, testing::ElementsAre(0.75f, 0.125f));
  EXPECT_THAT(sample.group_sizes, testing::ElementsAre(1, 2));
  answer.output = client::Matrix::Take(1, 2, {5, 6});
  EXPECT_EQ(sample.Add(request, answer, 1).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(CompareTest, TokensMayHaveDifferentNumbersOfExperts) {
  const client::Matrix request = client::Matrix::Take(3, 1, {1, 2, 3});
  client::ForwardResult answer;
  answer.output = request;
  answer.routing.assignments_per_token = {2, 0, 1};
  answer.routing.expert_ids = {4, 5, 6};
  answer.routing.expert_weights = {0.5f, 0.25f, 0.75f};
  Sample sample;
  ASSERT_TRUE(sample.Add(request, answer, 3).ok());
  ASSERT_EQ(sample.chosen.size(), 3u);
  EXPECT_THAT(sample.chosen[0].expert_ids, testing::ElementsAre(4, 5));
  EXPECT_THAT(sample.chosen[1].expert_ids, testing::IsEmpty());
  EXPECT_THAT(sample.chosen[2].weights, testing::ElementsAre(0.75f));
  // Counts that do not fit are no routing.
  answer.routing.assignments_per_token = {2, 0, 2};
  Sample wrong;
  ASSERT_TRUE(wrong.Add(request, answer, 3).ok());
  EXPECT_THAT(wrong.chosen, testing::IsEmpty());
}

// What a correct mesh says of tokens (2, 1) and (-1, 3) of the tiny model.
Sample FromTheMesh(const TinyCheckpoint& checkpoint,
                   const std::vector<reference::TokenExperts>& chosen) {
  Sample sample;
  sample.tokens = 2;
  sample.hidden = {2, 1, -1, 3};
  sample.chosen = chosen;
  reference::ReferenceInput input;
  input.hidden = sample.hidden;
  input.tokens = 2;
  sample.output = reference::ComputeWithReference(
                      checkpoint, 1, checkpoint.model().layers[0].routing, input, chosen)
                      .value();
  return sample;
}

client::LayerInfo Layer(const std::string& routing = "") {
  client::LayerInfo layer;
  layer.layer = 1;
  layer.num_experts = 2;
  layer.routing = routing;
  return layer;
}

constexpr client::Dtype kFloat32 = client::Dtype::kFloat32;
const float kFirst = 0.7310586f;   // 1 / (1 + e^-1)
const float kSecond = 0.9820138f;  // 1 / (1 + e^-4)

TEST(CompareWithReferenceTest, ChecksRouting) {
  const TinyCheckpoint checkpoint;
  const client::LayerInfo layer = Layer();
  const auto right = CompareWithReference(
      checkpoint, layer, kFloat32, FromTheMesh(checkpoint, {{{0}, {kFirst}}, {{1}, {kSecond}}}));
  ASSERT_TRUE(right.ok()) << right.status();
  EXPECT_EQ(right->same_experts, 2u);
  EXPECT_TRUE(right->Within(1e-6));
  EXPECT_EQ(right->routing_taken_because, "");
  const auto expert = CompareWithReference(
      checkpoint, layer, kFloat32, FromTheMesh(checkpoint, {{{1}, {kFirst}}, {{1}, {kSecond}}}));
  EXPECT_EQ(expert->other_experts, 1u);
  const auto weight = CompareWithReference(
      checkpoint, layer, kFloat32, FromTheMesh(checkpoint, {{{0}, {0.5f}}, {{1}, {kSecond}}}));
  EXPECT_FALSE(weight->Within(1e-2));
}

TEST(CompareWithReferenceTest, RoutingInForceIsTheRoutersWord) {
  const TinyCheckpoint checkpoint;
  const Sample sample = FromTheMesh(checkpoint, {{{0}, {2 * kFirst}}, {{1}, {2 * kSecond}}});
  client::LayerInfo layer = Layer();
  EXPECT_FALSE(CompareWithReference(checkpoint, layer, kFloat32, sample)->Within(1e-2));
  RoutingOptions doubled = checkpoint.model().layers[0].routing;
  doubled.scale = 2;
  layer.routing = RoutingJson(doubled);
  EXPECT_TRUE(CompareWithReference(checkpoint, layer, kFloat32, sample)->Within(1e-6));
  layer.routing = "{";
  EXPECT_EQ(CompareWithReference(checkpoint, layer, kFloat32, sample).status().code(),
            absl::StatusCode::kInternal);
}

// bfloat16 rounds the weight of token 0 to 0.73046875, which is more than 1e-5 away.
TEST(CompareWithReferenceTest, RoundsAsTheMeshDoes) {
  TinyCheckpoint checkpoint;
  checkpoint.layer().routing.weight_dtype = WeightDtype::kModel;
  const Sample exact = FromTheMesh(checkpoint, {{{0}, {kFirst}}, {{1}, {kSecond}}});
  const Sample rounded = FromTheMesh(checkpoint, {{{0}, {0.73046875f}}, {{1}, {0.98046875f}}});
  constexpr client::Dtype kBFloat16 = client::Dtype::kBFloat16;
  EXPECT_TRUE(CompareWithReference(checkpoint, Layer(), kFloat32, exact)->Within(1e-6));
  EXPECT_FALSE(CompareWithReference(checkpoint, Layer(), kFloat32, rounded)->Within(1e-5));
  EXPECT_FALSE(CompareWithReference(checkpoint, Layer(), kBFloat16, exact)->Within(1e-5));
  EXPECT_TRUE(CompareWithReference(checkpoint, Layer(), kBFloat16, rounded)->Within(1e-6));
}

TEST(CompareWithReferenceTest, RandomRoutingIsTakenFromTheAnswer) {
  const TinyCheckpoint checkpoint;
  const client::LayerInfo layer = Layer(R"({"noise": "gumbel"})");
  // Experts and weights that nothing but noise could give.
  Sample sample = FromTheMesh(checkpoint, {{{1}, {0.25f}}, {{0, 1}, {0.5f, 2.0f}}});
  const auto agreement = CompareWithReference(checkpoint, layer, kFloat32, sample);
  ASSERT_TRUE(agreement.ok()) << agreement.status();
  EXPECT_TRUE(agreement->Within(1e-6));
  EXPECT_EQ(agreement->routing_taken_because, "noise = gumbel");
  sample.output[0] += 1;
  EXPECT_FALSE(CompareWithReference(checkpoint, layer, kFloat32, sample)->Within(1e-2));
  sample.chosen.clear();
  const absl::Status refused = CompareWithReference(checkpoint, layer, kFloat32, sample).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("noise = gumbel"));
}

TEST(CompareWithReferenceTest, PartOfAGroupCannotBeRouted) {
  const TinyCheckpoint checkpoint;
  const client::LayerInfo layer = Layer(R"({"capacity_tokens": 1})");
  Sample sample = FromTheMesh(checkpoint, {{{0}, {kFirst}}, {{1}, {kSecond}}});
  sample.group_sizes = {2};
  EXPECT_EQ(CompareWithReference(checkpoint, layer, kFloat32, sample)->routing_taken_because, "");
  sample.whole = false;
  EXPECT_EQ(CompareWithReference(checkpoint, layer, kFloat32, sample)->routing_taken_because,
            "not all tokens of a group");
}

TEST(CompareWithReferenceTest, LastBitsOfLogitsAreForgiven) {
  const TinyCheckpoint checkpoint;
  const client::LayerInfo layer = Layer();
  Sample sample = FromTheMesh(checkpoint, {{{1}, {0.5f}}, {{1}, {kSecond}}});
  sample.hidden[0] = 1.000004f;  // Expert 0 by a hair; its margin is above what counts as a tie.
  sample.hidden[1] = 1.0f;
  const auto agreement = CompareWithReference(checkpoint, layer, kFloat32, sample);
  ASSERT_TRUE(agreement.ok()) << agreement.status();
  EXPECT_EQ(agreement->ties, 1u);
  EXPECT_EQ(agreement->other_experts, 0u);
}

}  // namespace
}  // namespace expertmesh::command
