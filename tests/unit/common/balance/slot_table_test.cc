#include "common/balance/slot_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace expertmesh::balance {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

PlanningInput Layers(uint32_t layers, uint32_t experts, uint64_t bytes) {
  PlanningInput input;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    input.layers.push_back({layer, bytes, std::vector<double>(experts, 1)});
  }
  return input;
}

void AddNode(uint64_t capacity, PlanningInput* input) {
  NodeToPlan& node = input->nodes.emplace_back();
  node.node_id = absl::StrCat(input->nodes.size());
  node.capacity_bytes = capacity;
}

std::vector<uint32_t> NothingHeld(const PlanningInput& input) {
  return std::vector<uint32_t>(input.layers.size() * input.nodes.size());
}

std::vector<SlotNeeds> Needed(const PlanningInput& input, uint32_t min_copies) {
  std::vector<SlotNeeds> needed(input.layers.size());
  for (size_t layer = 0; layer < input.layers.size(); ++layer) {
    needed[layer].copies = input.layers[layer].loads.size() * min_copies;
  }
  return needed;
}

// Every node is in the one zone.
std::vector<uint32_t> OneZone(const PlanningInput& input) {
  return std::vector<uint32_t>(input.nodes.size());
}

uint32_t Sum(absl::Span<const uint32_t> slots) {
  return std::accumulate(slots.begin(), slots.end(), 0u);
}

// 300 nodes with room for 3 experts each, of 24 layers.
TEST(SlotTableTest, NodesThatHoldLessThanAnExpertOfEachLayerTakeTurns) {
  PlanningInput input = Layers(24, 32, 1000);
  for (int i = 0; i < 300; ++i) {
    AddNode(3999, &input);
  }
  SlotTable table;
  ASSERT_TRUE(table.Fill(input, 1, OneZone(input), NothingHeld(input), Needed(input, 1)).ok());
  for (size_t layer = 0; layer < 24; ++layer) {
    EXPECT_THAT(Sum(table.OfLayer(layer)), ::testing::AnyOf(37u, 38u));
  }
  for (size_t node = 0; node < 300; ++node) {
    uint32_t slots = 0;
    for (size_t layer = 0; layer < 24; ++layer) {
      slots += table.OfLayer(layer)[node];
    }
    EXPECT_EQ(slots, 3u);
  }
}

TEST(SlotTableTest, WhatIsHeldKeepsItsSlots) {
  PlanningInput input = Layers(2, 8, 10);
  AddNode(80, &input);
  AddNode(80, &input);
  SlotTable table;
  // Seven of the first layer on the first node, one of the second.
  ASSERT_TRUE(
      table.Fill(input, 1, OneZone(input), std::vector<uint32_t>{7, 1, 1, 7}, Needed(input, 1))
          .ok());
  EXPECT_THAT(table.OfLayer(0), ElementsAre(7, 1));
  EXPECT_THAT(table.OfLayer(1), ElementsAre(1, 7));
}

// The first layer's second copies give way.
TEST(SlotTableTest, LayersThatAreShortGetSlotsOfOthers) {
  PlanningInput input = Layers(2, 4, 10);
  AddNode(40, &input);
  AddNode(40, &input);
  SlotTable table;
  ASSERT_TRUE(
      table.Fill(input, 1, OneZone(input), std::vector<uint32_t>{4, 4, 0, 0}, Needed(input, 1))
          .ok());
  EXPECT_EQ(Sum(table.OfLayer(0)), 4u);
  EXPECT_EQ(Sum(table.OfLayer(1)), 4u);
  EXPECT_THAT(table.Fill(input, 2, OneZone(input), NothingHeld(input), Needed(input, 2)).ToString(),
              HasSubstr("needs room for 8 copies (4 experts, min_copies 2)"));
}

// The last layer's expert has ten times the bytes of one of the first.
PlanningInput MixedLayers(uint64_t capacity, uint64_t other_capacity) {
  PlanningInput input;
  input.layers = {{0, 10, {1, 1}}, {1, 100, {1}}};
  AddNode(capacity, &input);
  AddNode(other_capacity, &input);
  return input;
}

// Both copies of the first layer on the first node are not the bytes of one of the second.
TEST(SlotTableTest, SlotsThatAreNotEnoughStayWithTheirLayer) {
  const PlanningInput input = MixedLayers(30, 110);
  SlotTable table;
  const absl::Status status =
      table.Fill(input, 1, OneZone(input), std::vector<uint32_t>{2, 2, 0, 0}, Needed(input, 1));
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(table.OfLayer(0), ElementsAre(2, 1));
  EXPECT_THAT(table.OfLayer(1), ElementsAre(0, 1));
}

// Three slots are taken, and the largest is enough.
TEST(SlotTableTest, SlotsThatAreTakenNeedlesslyGoBack) {
  PlanningInput input;
  input.layers = {{0, 10, {1, 1, 1}}, {1, 100, {1, 1}}, {2, 100, {1}}};
  AddNode(230, &input);
  AddNode(230, &input);
  SlotTable table;
  const absl::Status status = table.Fill(input, 1, OneZone(input),
                                         std::vector<uint32_t>{3, 3, 2, 2, 0, 0}, Needed(input, 1));
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(table.OfLayer(0), ElementsAre(3, 3));
  EXPECT_THAT(table.OfLayer(1), ElementsAre(1, 2));
  EXPECT_THAT(table.OfLayer(2), ElementsAre(1, 0));
}

// Two layers share two nodes of zone 0 and one of zone 1, and experts are to be in both zones:
// slots in zone 1 are what is short, for the layer that holds none there.
TEST(SlotTableTest, LayersThatAreShortInAZoneGetSlotsThere) {
  PlanningInput input = Layers(2, 2, 10);
  for (int i = 0; i < 3; ++i) {
    AddNode(40, &input);
  }
  input.nodes[0].capacity_bytes = input.nodes[1].capacity_bytes = 30;
  std::vector<SlotNeeds> needs = Needed(input, 2);
  const std::vector<uint32_t> zones = {0, 0, 1};
  const std::vector<uint32_t> held = {1, 1, 2, 2, 2, 0};
  for (const bool in_each_zone : {false, true}) {
    for (SlotNeeds& of_layer : needs) {
      of_layer.without = {2, 2};
      of_layer.in_each_zone = in_each_zone;
    }
    SlotTable table;
    ASSERT_TRUE(table.Fill(input, 2, zones, held, needs).ok());
    EXPECT_THAT(table.OfLayer(0), ElementsAre(::testing::_, ::testing::_, 2));
    EXPECT_THAT(table.OfLayer(1), ElementsAre(::testing::_, ::testing::_, 2));
  }
}

// The first layer has slots to spare, but none in zone 1.
TEST(SlotTableTest, LayersKeepTheSlotsThatTheyNeedInAZone) {
  PlanningInput input = Layers(2, 2, 10);
  for (const uint64_t capacity : {40, 40, 20}) {
    AddNode(capacity, &input);
  }
  std::vector<SlotNeeds> needs = Needed(input, 2);
  for (const bool in_each_zone : {false, true}) {
    for (SlotNeeds& of_layer : needs) {
      of_layer.without = {2, 2};
      of_layer.in_each_zone = in_each_zone;
    }
    SlotTable table;
    ASSERT_TRUE(table
                    .Fill(input, 2, std::vector<uint32_t>{0, 0, 1},
                          std::vector<uint32_t>{2, 2, 2, 2, 2, 0}, needs)
                    .ok());
    EXPECT_THAT(table.OfLayer(0), ElementsAre(2, 2, 2));
    EXPECT_THAT(table.OfLayer(1), ElementsAre(2, 2, 0));
  }
}

TEST(SlotTableTest, ANodeHasNoMoreSlotsThanThereAreExperts) {
  PlanningInput input = Layers(3, 5, 1);
  AddNode(1'000'000, &input);
  AddNode(1'000'000, &input);
  input.nodes[1].slots_per_layer = 2;
  SlotTable table;
  ASSERT_TRUE(table.Fill(input, 1, OneZone(input), NothingHeld(input), Needed(input, 1)).ok());
  for (size_t layer = 0; layer < 3; ++layer) {
    EXPECT_THAT(table.OfLayer(layer), ElementsAre(5, 2));
  }
}

TEST(SlotTableTest, NodesThatAcceptNothingHaveSlotsForWhatTheyHold) {
  PlanningInput input = Layers(1, 4, 10);
  AddNode(40, &input);
  AddNode(0, &input);
  input.nodes[1].accepts_copies = false;
  SlotTable table;
  ASSERT_TRUE(
      table.Fill(input, 1, OneZone(input), std::vector<uint32_t>{0, 3}, Needed(input, 1)).ok());
  EXPECT_THAT(table.OfLayer(0), ElementsAre(4, 3));
}

}  // namespace
}  // namespace expertmesh::balance
