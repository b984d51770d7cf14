// Which copies a placement uses when a plan names some.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "router_service/mesh/placement.h"

namespace expertmesh::mesh {
namespace {

using balance::ExpertCopy;
using balance::LayerPlacement;
using balance::PlacementPlan;
using testing::ElementsAre;
using testing::FloatNear;
using testing::IsEmpty;

constexpr float kRounding = 1e-6f;

ModelDescription OneLayer(uint32_t experts) {
  ModelDescription model;
  MoeLayerDescription layer;
  layer.layer = 3;
  layer.routing.num_experts = experts;
  layer.expert.intermediate_size = 8;
  model.layers.push_back(layer);
  return model;
}

// Nodes "n0", "n1" and so on, of that index.
class Nodes {
 public:
  Nodes& Add(NodeIndex node, const std::vector<uint32_t>& experts, bool last_resort = false,
             uint32_t slice = 0, uint32_t slices = 1) {
    v1::HostedExperts& hosted = hosted_.emplace_back();
    hosted.set_layer(3);
    hosted.mutable_experts()->Add(experts.begin(), experts.end());
    hosted.set_slice_index(slice);
    hosted.set_slice_count(slices);
    pointers_.push_back({&hosted});
    NodeOffer& offer = offers.emplace_back();
    offer.node = node;
    offer.last_resort = last_resort;
    offer.hosted = pointers_.back();
    offer.node_id = "n" + std::to_string(node);
    return *this;
  }

  std::vector<NodeOffer> offers;

 private:
  std::deque<v1::HostedExperts> hosted_;
  std::deque<std::vector<const v1::HostedExperts*>> pointers_;
};

// How the only expert is served by a plan with these copies of it.
ExpertReplicas Only(const Nodes& nodes, const std::vector<ExpertCopy>& copies) {
  const PlacementPlan plan{{"n0", "n1", "n2"}, {LayerPlacement{3, {copies}}}};
  return (*Placement(OneLayer(1), nodes.offers, &plan).Layer(3))[0];
}

TEST(PlannedPlacementTest, PlannedCopiesAreUsedWithTheirSharesAndOthersAreNot) {
  Nodes nodes;
  nodes.Add(2, {0}).Add(0, {0}).Add(1, {0}).Add(9, {0});
  const ExpertReplicas replicas = Only(nodes, {{0, 0.25f}, {2, 0.75f}});
  EXPECT_THAT(replicas.slices, ElementsAre(ElementsAre(0, 2)));
  EXPECT_THAT(replicas.shares, ElementsAre(ElementsAre(0.25f, 0.75f)));
}

TEST(PlannedPlacementTest, TheSharesOfCopiesThatAreNotReadyGoToTheOthersInProportion) {
  Nodes nodes;
  nodes.Add(0, {0}).Add(1, {0}, /*last_resort=*/true).Add(2, {0});
  const ExpertReplicas replicas = Only(nodes, {{0, 0.1f}, {1, 0.5f}, {2, 0.4f}});
  EXPECT_THAT(replicas.slices, ElementsAre(ElementsAre(0, 2)));
  EXPECT_THAT(replicas.shares[0],
              ElementsAre(FloatNear(0.2f, kRounding), FloatNear(0.8f, kRounding)));
}

TEST(PlannedPlacementTest, CopiesWhoseSharesAreAllZeroShareEvenly) {
  Nodes nodes;
  nodes.Add(0, {0}).Add(1, {0}).Add(2, {0});
  const ExpertReplicas replicas = Only(nodes, {{0, 0.0f}, {1, 0.0f}, {5, 1.0f}});
  EXPECT_THAT(replicas.shares, ElementsAre(ElementsAre(0.5f, 0.5f)));
}

TEST(PlannedPlacementTest, APlanNeverMakesAnExpertMissing) {
  // No planned copy is there; the only one that is, is not whole; the only one that is drains.
  Nodes elsewhere;
  elsewhere.Add(4, {0});
  Nodes sliced;
  sliced.Add(0, {0}, false, 0, 2).Add(1, {0}, false, 1, 2);
  Nodes draining;
  draining.Add(0, {0}, /*last_resort=*/true).Add(4, {0});
  for (const Nodes* nodes : {&elsewhere, &sliced, &draining}) {
    const ExpertReplicas replicas = Only(*nodes, {{0, 1.0f}});
    const Placement unplanned(OneLayer(1), nodes->offers);
    EXPECT_FALSE(replicas.missing());
    EXPECT_EQ(replicas.slices, (*unplanned.Layer(3))[0].slices);
    EXPECT_THAT(replicas.shares, IsEmpty());
  }
}

TEST(PlannedPlacementTest, ACopyThatIsExcludedIsNotUsed) {
  Nodes nodes;
  nodes.Add(0, {0}).Add(1, {0});
  nodes.offers[0].excluded = {{3, 0}};
  EXPECT_THAT(Only(nodes, {{0, 0.9f}, {1, 0.1f}}).slices, ElementsAre(ElementsAre(1)));
}

TEST(PlannedPlacementTest, WhatThePlanMakesUpIsLeftOut) {
  Nodes nodes;
  nodes.Add(0, {0}).Add(1, {0});
  const ExpertReplicas replicas =
      Only(nodes, {{0, 0.5f}, {77, 0.5f}, {1, -3.0f}, {1, std::nanf("")}, {1, HUGE_VALF}});
  EXPECT_THAT(replicas.shares, ElementsAre(ElementsAre(1.0f, 0.0f)));
  const PlacementPlan short_plan{{"n0"}, {LayerPlacement{3, {}}, LayerPlacement{8, {{{0, 1}}}}}};
  const Placement placement(OneLayer(1), nodes.offers, &short_plan);
  EXPECT_TRUE(placement.complete());
  EXPECT_THAT((*placement.Layer(3))[0].slices, ElementsAre(ElementsAre(0, 1)));
  EXPECT_EQ(placement.Layer(8), nullptr);
}

TEST(PlannedPlacementTest, OfTwoNodesOfOneNameTheFirstThatOffersTheCopyIsMeant) {
  Nodes nodes;
  nodes.Add(0, {}).Add(1, {0}).Add(2, {0});
  for (NodeOffer& offer : nodes.offers) {
    offer.node_id = "n0";
  }
  EXPECT_THAT(Only(nodes, {{0, 1.0f}}).slices, ElementsAre(ElementsAre(1)));
}

// Written from what the header promises, one (expert, node) at a time.
std::map<NodeIndex, double> Oracle(const std::vector<std::set<uint32_t>>& held,
                                   const std::vector<bool>& last_resort, const PlacementPlan& plan,
                                   uint32_t expert) {
  std::map<NodeIndex, double> ready;
  double sum = 0;
  for (const ExpertCopy& copy : plan.layers[0].experts[expert]) {
    const auto node = static_cast<NodeIndex>(std::stoul(plan.nodes[copy.node].substr(1)));
    if (node < held.size() && !last_resort[node] && held[node].contains(expert)) {
      ready[node] = static_cast<double>(copy.share);
      sum += static_cast<double>(copy.share);
    }
  }
  for (auto& [node, share] : ready) {
    share /= sum;
  }
  return ready;
}

TEST(PlannedPlacementTest, RandomPlansOnRandomNodes) {
  constexpr uint32_t kExperts = 12;
  constexpr uint32_t kNodes = 5;
  std::mt19937 random(11);
  const auto chance = [&random](int of_ten) { return static_cast<int>(random() % 10) < of_ten; };
  int planned = 0;
  int unplanned = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<std::set<uint32_t>> held(kNodes);
    std::vector<bool> last_resort;
    Nodes nodes;
    PlacementPlan plan{{"n3", "n0", "n7", "n4", "n1"}, {LayerPlacement{3, {}}}};
    for (NodeIndex node = 0; node < kNodes; ++node) {
      for (uint32_t expert = 0; expert < kExperts; ++expert) {
        if (chance(4)) {
          held[node].insert(expert);
        }
      }
      last_resort.push_back(chance(2));
      nodes.Add(node, {held[node].begin(), held[node].end()}, last_resort[node]);
    }
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      std::vector<ExpertCopy>& copies = plan.layers[0].experts.emplace_back();
      for (uint32_t node = 0; node < plan.nodes.size(); ++node) {
        if (chance(5)) {
          copies.push_back({node, static_cast<float>(1 + random() % 100) / 100});
        }
      }
    }
    const ModelDescription model = OneLayer(kExperts);
    const Placement with(model, nodes.offers, &plan);
    const Placement without(model, nodes.offers);
    EXPECT_EQ(with.missing().size(), without.missing().size());
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      const ExpertReplicas& replicas = (*with.Layer(3))[expert];
      const std::map<NodeIndex, double> expected = Oracle(held, last_resort, plan, expert);
      if (expected.empty()) {
        ++unplanned;
        EXPECT_EQ(replicas.slices, (*without.Layer(3))[expert].slices);
        EXPECT_THAT(replicas.shares, IsEmpty());
        continue;
      }
      ++planned;
      ASSERT_EQ(replicas.slices.size(), 1u);
      ASSERT_EQ(replicas.slices[0].size(), expected.size());
      size_t at = 0;
      for (const auto& [node, share] : expected) {
        EXPECT_EQ(replicas.slices[0][at], node);
        EXPECT_NEAR(replicas.shares[0][at], share, 1e-5);
        ++at;
      }
    }
  }
  EXPECT_GT(planned, 200);
  EXPECT_GT(unplanned, 200);
}

}  // namespace
}  // namespace expertmesh::mesh
