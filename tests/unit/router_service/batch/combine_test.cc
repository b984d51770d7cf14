#include "router_service/batch/combine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace expertmesh::batch {
namespace {

using testing::ElementsAre;

// In float32 (1e8 + 3) - 1e8 is 0, (1e8 - 1e8) + 3 is 3, and (3 - 1e8) + 1e8 is 0: an order of
// summation gives itself away.
constexpr float kBig = 1e8f;

// Two tokens, experts 2, 0, 1 and 1, 2 in slot order; every expert whole on nodes 0 and 1.
struct Batch {
  gate::RoutedTokens routed{{0, 3, 5}, {2, 0, 1, 1, 2}, {1, 1, 1, 1, 1}, {}};
  std::vector<mesh::ExpertReplicas> replicas =
      std::vector<mesh::ExpertReplicas>(3, mesh::ExpertReplicas{{{0, 1}}});
};

std::vector<float> CombineAll(const Batch& batch,
                              const std::vector<AssignmentContribution>& contributions,
                              const float* shared = nullptr) {
  std::vector<float> output(2, 12345.0f);
  SlotPartials partials;
  FindSlotPartials(batch.routed, contributions, 1, &partials);
  CombineInSlotOrder(batch.routed, partials, shared, {0, 2}, 1, output.data());
  // Range by range it is the same.
  std::vector<float> by_row(2, 12345.0f);
  CombineInSlotOrder(batch.routed, partials, shared, {1, 1}, 1, &by_row[1]);
  CombineInSlotOrder(batch.routed, partials, shared, {0, 1}, 1, &by_row[0]);
  EXPECT_EQ(by_row, output);
  return output;
}

// Three rows of two elements, from nodes whose links have different types.
TEST(CombineTest, SumsEachRangeInTheOrderGivenWhateverTheType) {
  const uint32_t all_rows[] = {0, 1, 2};
  const uint32_t some_rows[] = {0, 2};
  const float big[] = {kBig, 1.0f, kBig, 2.0f, kBig, 3.0f};
  uint16_t brain[4];
  const float of_brain[] = {3.0f, 0.5f, -3.0f, 0.25f};
  ConvertElements(DType::kF32, of_brain, DType::kBF16, brain, 4);
  uint16_t half[6];
  const float of_half[] = {-1.0f, -2.0f, 7.0f, 8.0f, 9.0f, 0.0f};
  ConvertElements(DType::kF32, of_half, DType::kF16, half, 6);
  const float minus_big[] = {-kBig, 1.0f, -kBig, 1.0f, -kBig, 1.0f};
  const std::vector<Contribution> contributions = {{all_rows, {big, DType::kF32}},
                                                   {some_rows, {brain, DType::kBF16}},
                                                   {all_rows, {minus_big, DType::kF32}},
                                                   {all_rows, {half, DType::kF16}}};
  const float shared[] = {10.0f, 20.0f, 30.0f, 40.0f, 50.0f, 60.0f};
  // In float32 1e8 + 3 is 1e8: what stands between the big ones is lost.
  const std::vector<float> expected = {9.0f, 20.5f, 37.0f, 51.0f, 59.0f, 64.25f};
  for (const size_t together : {1, 2, 3}) {
    std::vector<float> output(expected.size(), 12345.0f);
    for (size_t first = 0; first < 3; first += together) {
      Combine(contributions, shared, {first, std::min<size_t>(together, 3 - first)}, 2,
              output.data() + 2 * first);
    }
    EXPECT_EQ(output, expected) << together;
  }
  std::vector<float> alone(2, 12345.0f);
  Combine({}, nullptr, {1, 1}, 2, alone.data());
  EXPECT_THAT(alone, ElementsAre(0.0f, 0.0f));
}

TEST(CombineInSlotOrderTest, SumsInSlotOrderWhateverCameFromWhereAndWhen) {
  const Batch batch;
  const float shared[] = {kBig, 0.5f};
  // Token 0: 1e8, -1e8, 3 and the shared 1e8; token 1: -1e8, 1e8 and 0.5.
  const std::vector<float> expected = {3.0f + kBig, 0.5f};
  const plan::NodePlan all = {0, {0, 1}, {0, 3, 5}, {2, 0, 1, 1, 2}, {}};
  const float all_partials[] = {kBig, -kBig, 3.0f, -kBig, kBig};
  EXPECT_EQ(CombineAll(batch, {{&all, &batch.replicas, {all_partials}}}, shared), expected);

  const plan::NodePlan first = {0, {0, 1}, {0, 2, 3}, {0, 1, 1}, {}};
  const float first_partials[] = {-kBig, 3.0f, -kBig};
  const plan::NodePlan second = {1, {0, 1}, {0, 1, 2}, {2, 2}, {}};
  const float second_partials[] = {kBig, kBig};
  std::vector<AssignmentContribution> parts = {{&first, &batch.replicas, {first_partials}},
                                               {&second, &batch.replicas, {second_partials}}};
  EXPECT_EQ(CombineAll(batch, parts, shared), expected);
  std::reverse(parts.begin(), parts.end());
  EXPECT_EQ(CombineAll(batch, parts, shared), expected);
}

TEST(CombineInSlotOrderTest, PiecesOfARowAreOneRow) {
  const Batch batch;
  const plan::NodePlan later = {0, {0, 1}, {0, 1, 3}, {1, 1, 2}, {}};
  const float later_partials[] = {3.0f, 1.0f, 2.0f};
  const plan::NodePlan earlier = {0, {0}, {0, 2}, {2, 0}, {}};
  const float earlier_partials[] = {kBig, -kBig};
  EXPECT_THAT(CombineAll(batch, {{&later, &batch.replicas, {later_partials}},
                                 {&earlier, &batch.replicas, {earlier_partials}}}),
              ElementsAre(3.0f, 3.0f));
}

TEST(CombineInSlotOrderTest, SlicesOfASlotInOrderOfSlices) {
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
  std::vector<AssignmentContribution> parts = {{&whole, &batch.replicas, {one}}};
  for (mesh::NodeIndex node = 0; node < 3; ++node) {
    parts.push_back({&plans[node], &batch.replicas, {&of_node[node]}});
  }
  EXPECT_THAT(CombineAll(batch, parts), ElementsAre(3.0f, 0.0f));
}

TEST(CombineInSlotOrderTest, WhatNobodyContributedIsLeftOut) {
  const Batch batch;
  const plan::NodePlan plan = {1, {1}, {0, 1}, {2}, {}};
  const float partials[] = {7.0f};
  EXPECT_THAT(CombineAll(batch, {{&plan, &batch.replicas, {partials}}}), ElementsAre(0.0f, 7.0f));
  const float shared[] = {1.0f, 2.0f};
  EXPECT_THAT(CombineAll(batch, {}, shared), ElementsAre(1.0f, 2.0f));
}

}  // namespace
}  // namespace expertmesh::batch
