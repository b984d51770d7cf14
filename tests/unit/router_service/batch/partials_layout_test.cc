#include "router_service/batch/partials_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace expertmesh::batch {
namespace {

using testing::ElementsAre;

// In float32 (1e8 + 3) - 1e8 is 0, (1e8 - 1e8) + 3 is 3, and (3 - 1e8) + 1e8 is 0: an order of
// summation gives itself away.
constexpr float kBig = 1e8f;
constexpr uint32_t kShared = 3;

// Two tokens, experts 2, 0, 1 and 1, 2 in slot order; every expert whole on nodes 0 and 1.
struct Batch {
  gate::RoutedTokens routed{{0, 3, 5}, {2, 0, 1, 1, 2}, {1, 1, 1, 1, 1}, {}};
  std::vector<mesh::ExpertReplicas> replicas =
      std::vector<mesh::ExpertReplicas>(4, mesh::ExpertReplicas{{{0, 1}}});
};

std::vector<float> SumAll(const PartialsLayout& layout, const gate::RoutedTokens& routed,
                          const std::vector<Contribution>& contributions, size_t d_model,
                          size_t together, const float* shared) {
  const size_t rows = routed.tokens();
  std::vector<float> output(rows * d_model, 12345.0f);
  const std::unique_ptr<PartialsSum> sum = layout.NewSum();
  sum->Collect(routed, contributions, kShared, d_model);
  for (size_t first = 0; first < rows; first += together) {
    sum->Sum({first, std::min(together, rows - first)}, shared, output.data() + first * d_model);
  }
  return output;
}

// In slot order.
std::vector<float> SumAssignments(const Batch& batch,
                                  const std::vector<Contribution>& contributions,
                                  const float* shared = nullptr) {
  const auto layout = MakeAssignmentPartials();
  const std::vector<float> output = SumAll(*layout, batch.routed, contributions, 1, 2, shared);
  EXPECT_EQ(SumAll(*layout, batch.routed, contributions, 1, 1, shared), output) << "by row";
  return output;
}

// Three rows of two elements, from nodes whose links have different types.
TEST(RowPartialsTest, SumsEachRangeInTheOrderGivenWhateverTheType) {
  const plan::NodePlan all_rows = {0, {0, 1, 2}, {}, {}, {}};
  const plan::NodePlan some_rows = {1, {0, 2}, {}, {}, {}};
  const float big[] = {kBig, 1.0f, kBig, 2.0f, kBig, 3.0f};
  uint16_t brain[4];
  const float of_brain[] = {3.0f, 0.5f, -3.0f, 0.25f};
  ConvertElements(Dtype::kF32, of_brain, Dtype::kBF16, brain, 4);
  uint16_t half[6];
  const float of_half[] = {-1.0f, -2.0f, 7.0f, 8.0f, 9.0f, 0.0f};
  ConvertElements(Dtype::kF32, of_half, Dtype::kF16, half, 6);
  const float minus_big[] = {-kBig, 1.0f, -kBig, 1.0f, -kBig, 1.0f};
  const std::vector<Contribution> contributions = {{&all_rows, nullptr, {big, Dtype::kF32}},
                                                   {&some_rows, nullptr, {brain, Dtype::kBF16}},
                                                   {&all_rows, nullptr, {minus_big, Dtype::kF32}},
                                                   {&all_rows, nullptr, {half, Dtype::kF16}}};
  const float shared[] = {10.0f, 20.0f, 30.0f, 40.0f, 50.0f, 60.0f};
  // In float32 1e8 + 3 is 1e8: what stands between the big ones is lost.
  const std::vector<float> expected = {9.0f, 20.5f, 37.0f, 51.0f, 59.0f, 64.25f};
  const gate::RoutedTokens routed{{0, 0, 0, 0}, {}, {}, {}};
  const auto layout = MakeRowPartials();
  for (const size_t together : {1, 2, 3}) {
    EXPECT_EQ(SumAll(*layout, routed, contributions, 2, together, shared), expected) << together;
  }
  EXPECT_EQ(SumAll(*layout, routed, {}, 2, 3, nullptr), std::vector<float>(6, 0.0f));
}

// What the two layouts ask of a node.
TEST(PartialsLayoutTest, AnswersAreCutToTheLimitOfTheNode) {
  // Two rows of two assignments, one of one.
  const plan::NodePlan plan = {0, {3, 5, 8}, {0, 2, 4, 5}, {0, 1, 0, 1, 1}, {1, 2, 3, 4, 5}};
  const auto answers = [&plan](const PartialsLayout& layout, uint32_t limit) {
    plan::NodePlanPool pool;
    std::vector<plan::NodePlan> pieces;
    layout.Cut(plan, limit, &pool, &pieces);
    std::vector<uint32_t> rows;
    for (const plan::NodePlan& piece : pieces) {
      rows.push_back(layout.AnswerRows(piece));
    }
    return rows;
  };
  const auto rows = MakeRowPartials();
  EXPECT_FALSE(rows->per_assignment());
  EXPECT_THAT(answers(*rows, 2), ElementsAre(2, 1));
  EXPECT_THAT(answers(*rows, 0), ElementsAre(3));
  const auto assignments = MakeAssignmentPartials();
  EXPECT_TRUE(assignments->per_assignment());
  EXPECT_THAT(answers(*assignments, 2), ElementsAre(2, 2, 1));
  EXPECT_THAT(answers(*assignments, 3), ElementsAre(3, 2));
  EXPECT_THAT(answers(*assignments, 0), ElementsAre(5));
  for (uint32_t answered = 0; answered < 5; ++answered) {
    EXPECT_EQ(assignments->PositionOf(plan, answered), answered / 2);
  }
  EXPECT_EQ(rows->PositionOf(plan, 2), 2u);
}

TEST(AssignmentPartialsTest, SumsInSlotOrderWhateverCameFromWhereAndWhen) {
  const Batch batch;
  const float shared[] = {kBig, 0.5f};
  // Token 0: 1e8, -1e8, 3 and the shared 1e8; token 1: -1e8, 1e8 and 0.5.
  const std::vector<float> expected = {3.0f + kBig, 0.5f};
  const plan::NodePlan all = {0, {0, 1}, {0, 3, 5}, {2, 0, 1, 1, 2}, {}};
  const float all_partials[] = {kBig, -kBig, 3.0f, -kBig, kBig};
  EXPECT_EQ(SumAssignments(batch, {{&all, &batch.replicas, {all_partials}}}, shared), expected);

  const plan::NodePlan first = {0, {0, 1}, {0, 2, 3}, {0, 1, 1}, {}};
  const float first_partials[] = {-kBig, 3.0f, -kBig};
  const plan::NodePlan second = {1, {0, 1}, {0, 1, 2}, {2, 2}, {}};
  const float second_partials[] = {kBig, kBig};
  std::vector<Contribution> parts = {{&first, &batch.replicas, {first_partials}},
                                     {&second, &batch.replicas, {second_partials}}};
  EXPECT_EQ(SumAssignments(batch, parts, shared), expected);
  std::reverse(parts.begin(), parts.end());
  EXPECT_EQ(SumAssignments(batch, parts, shared), expected);
}

TEST(AssignmentPartialsTest, PiecesOfARowAreOneRow) {
  const Batch batch;
  const plan::NodePlan later = {0, {0, 1}, {0, 1, 3}, {1, 1, 2}, {}};
  const float later_partials[] = {3.0f, 1.0f, 2.0f};
  const plan::NodePlan earlier = {0, {0}, {0, 2}, {2, 0}, {}};
  const float earlier_partials[] = {kBig, -kBig};
  EXPECT_THAT(SumAssignments(batch, {{&later, &batch.replicas, {later_partials}},
                                     {&earlier, &batch.replicas, {earlier_partials}}}),
              ElementsAre(3.0f, 3.0f));
}

TEST(AssignmentPartialsTest, SlicesOfASlotInOrderOfSlices) {
  Batch batch;
  // Expert 0 lies in three slices, in an order that is not that of the nodes.
  batch.replicas[0] = mesh::ExpertReplicas{{{2}, {0}, {1}}};
  const plan::NodePlan whole = {3, {0}, {0, 1}, {2}, {}};
  batch.replicas[2] = mesh::ExpertReplicas{{{3}}};
  const float one[] = {1.0f};
  std::vector<plan::NodePlan> plans;
  for (mesh::NodeIndex node = 0; node < 3; ++node) {
    plans.push_back({node, {0}, {0, 1}, {0}, {}});
  }
  // Slice after slice ((1 + 1e8) - 1e8) + 3 is 3; node after node ((1 - 1e8) + 3) + 1e8 is 0.
  const float of_node[] = {-kBig, 3.0f, kBig};
  std::vector<Contribution> parts = {{&whole, &batch.replicas, {one}}};
  for (mesh::NodeIndex node = 0; node < 3; ++node) {
    parts.push_back({&plans[node], &batch.replicas, {&of_node[node]}});
  }
  EXPECT_THAT(SumAssignments(batch, parts), ElementsAre(3.0f, 0.0f));
}

TEST(AssignmentPartialsTest, SharedExpertsComeLastWhoeverHasThem) {
  const Batch batch;
  // Token 0 has those of a node, which come behind its other assignments; token 1 the router's.
  const plan::NodePlan first = {0, {0}, {0, 2}, {2, kShared}, {}};
  const float first_partials[] = {kBig, 3.0f};
  const plan::NodePlan second = {1, {0, 1}, {0, 1, 2}, {0, 1}, {}};
  const float second_partials[] = {-kBig, kBig};
  const float shared[] = {0.0f, -kBig};
  EXPECT_THAT(SumAssignments(batch,
                             {{&first, &batch.replicas, {first_partials}},
                              {&second, &batch.replicas, {second_partials}}},
                             shared),
              ElementsAre(3.0f, 0.0f));
  EXPECT_THAT(SumAssignments(batch, {{&first, &batch.replicas, {first_partials}},
                                     {&second, &batch.replicas, {second_partials}}}),
              ElementsAre(3.0f, kBig));
}

TEST(AssignmentPartialsTest, WhatNoNodeContributedIsLeftOut) {
  const Batch batch;
  const plan::NodePlan plan = {1, {1}, {0, 1}, {2}, {}};
  const float partials[] = {7.0f};
  EXPECT_THAT(SumAssignments(batch, {{&plan, &batch.replicas, {partials}}}),
              ElementsAre(0.0f, 7.0f));
  const float shared[] = {1.0f, 2.0f};
  EXPECT_THAT(SumAssignments(batch, {}, shared), ElementsAre(1.0f, 2.0f));
}

}  // namespace
}  // namespace expertmesh::batch
