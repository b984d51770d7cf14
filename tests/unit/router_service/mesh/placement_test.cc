#include "router_service/mesh/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <vector>

namespace expertmesh::mesh {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

ModelDescription TwoLayers(uint32_t experts) {
  ModelDescription model;
  for (const uint32_t index : {2u, 5u}) {
    MoeLayerDescription layer;
    layer.layer = index;
    layer.routing.num_experts = experts;
    layer.expert.intermediate_size = 12;
    model.layers.push_back(layer);
  }
  return model;
}

// Builds offers and keeps what they point to.
class Offers {
 public:
  Offers& Add(NodeIndex node, uint32_t layer, const std::vector<uint32_t>& experts,
              uint32_t slice = 0, uint32_t slices = 1, bool last_resort = false) {
    v1::HostedExperts& hosted = hosted_.emplace_back();
    hosted.set_layer(layer);
    for (const uint32_t expert : experts) {
      hosted.add_experts(expert);
    }
    hosted.set_slice_index(slice);
    hosted.set_slice_count(slices);
    pointers_.push_back({&hosted});
    offers_.push_back({node, last_resort, pointers_.back()});
    return *this;
  }
  Placement Build(const ModelDescription& model) const { return Placement(model, offers_); }

 private:
  std::deque<v1::HostedExperts> hosted_;
  std::deque<std::vector<const v1::HostedExperts*>> pointers_;
  std::vector<NodeOffer> offers_;
};

TEST(PlacementTest, ListsReplicasInPlacementOrder) {
  const ModelDescription model = TwoLayers(2);
  const Placement placement =
      Offers().Add(3, 2, {0, 1}).Add(1, 2, {1}).Add(0, 5, {0, 1}).Build(model);
  EXPECT_TRUE(placement.complete());
  EXPECT_THAT((*placement.Layer(2))[0].slices, ElementsAre(ElementsAre(3)));
  EXPECT_THAT((*placement.Layer(2))[1].slices, ElementsAre(ElementsAre(1, 3)));
  EXPECT_EQ(placement.Layer(3), nullptr);
}

TEST(PlacementTest, NamesMissingExpertsByLayer) {
  const ModelDescription model = TwoLayers(3);
  const Placement placement = Offers().Add(0, 2, {1}).Add(0, 5, {0, 1, 2}).Build(model);
  EXPECT_FALSE(placement.complete());
  ASSERT_EQ(placement.missing().size(), 1u);
  EXPECT_EQ(placement.missing()[0].layer, 2u);
  EXPECT_THAT(placement.missing()[0].experts, ElementsAre(0, 2));
}

TEST(PlacementTest, AnExpertIsThereOnlyWithAllItsSlices) {
  const ModelDescription model = TwoLayers(1);
  Offers offers;
  offers.Add(9, 5, {0}).Add(0, 2, {0}, 0, 2);
  EXPECT_FALSE(offers.Build(model).complete());
  offers.Add(1, 2, {0}, 1, 2);
  const Placement placement = offers.Build(model);
  EXPECT_TRUE(placement.complete());
  EXPECT_THAT((*placement.Layer(2))[0].slices, ElementsAre(ElementsAre(0), ElementsAre(1)));
}

TEST(PlacementTest, NumbersThatANodeMakesUpSizeNothing) {
  const ModelDescription model = TwoLayers(1);
  for (const uint32_t count : {0u, 5u, 13u, 1'000'000u, ~0u}) {
    Offers offers;
    offers.Add(0, 2, {0}, 0, count).Add(0, 2, {0}, count - 1, count).Add(1, 5, {0});
    EXPECT_THAT((*offers.Build(model).Layer(2))[0].slices, IsEmpty()) << count;
    offers.Add(2, 2, {0}, 0, 2).Add(3, 2, {0}, 1, 2);
    EXPECT_TRUE(offers.Build(model).complete()) << count;
  }
}

TEST(PlacementTest, PrefersWholeExpertsToSlices) {
  const ModelDescription model = TwoLayers(1);
  const Placement placement =
      Offers().Add(0, 2, {0}, 0, 2).Add(1, 2, {0}, 1, 2).Add(2, 2, {0}).Build(model);
  EXPECT_THAT((*placement.Layer(2))[0].slices, ElementsAre(ElementsAre(2)));
}

TEST(PlacementTest, ADrainingNodeServesOnlyWhatNoOtherHolds) {
  const ModelDescription model = TwoLayers(2);
  const Placement placement = Offers().Add(0, 2, {0, 1}, 0, 1, true).Add(1, 2, {1}).Build(model);
  EXPECT_THAT((*placement.Layer(2))[0].slices, ElementsAre(ElementsAre(0)));
  EXPECT_THAT((*placement.Layer(2))[1].slices, ElementsAre(ElementsAre(1)));
}

TEST(PlacementTest, IgnoresWhatTheModelDoesNotHave) {
  const ModelDescription model = TwoLayers(1);
  const Placement placement = Offers()
                                  .Add(0, 2, {0, 7})
                                  .Add(0, 4, {0})
                                  .Add(0, 5, {0}, 2, 2)
                                  .Add(0, 5, {0}, 0, 0)
                                  .Build(model);
  EXPECT_FALSE((*placement.Layer(2))[0].missing());
  EXPECT_TRUE((*placement.Layer(5))[0].missing());
}

TEST(PlacementTest, SharedExpertsAreTheLastOnesAndNeverMissing) {
  ModelDescription model = TwoLayers(2);
  model.layers[0].shared_intermediate_size = 15;
  Offers offers;
  offers.Add(0, 2, {0, 1}).Add(0, 5, {0, 1, 2});
  EXPECT_EQ(offers.Build(model).Layer(5)->size(), 2u);  // It has none.
  EXPECT_TRUE(offers.Build(model).complete());
  EXPECT_THAT((*offers.Build(model).Layer(2))[2].slices, IsEmpty());
  // Routers have whole ones, which could not stand in for a slice.
  offers.Add(1, 2, {2}, 0, 3).Add(2, 2, {2}, 1, 3).Add(3, 2, {2}, 2, 3);
  EXPECT_THAT((*offers.Build(model).Layer(2))[2].slices, IsEmpty());
  offers.Add(7, 2, {1, 2}).Add(8, 2, {2, 3});
  EXPECT_THAT((*offers.Build(model).Layer(2))[2].slices, ElementsAre(ElementsAre(7, 8)));
}

TEST(PlacementTest, SlicesAreOfTheExpertsOwnWidth) {
  MoeLayerDescription layer = TwoLayers(2).layers[0];
  layer.shared_intermediate_size = 15;
  v1::HostedExperts hosted;
  hosted.set_slice_count(5);
  EXPECT_FALSE(IsPossible(hosted, 0, layer));
  EXPECT_TRUE(IsPossible(hosted, 2, layer));
  hosted.set_slice_count(4);
  EXPECT_TRUE(IsPossible(hosted, 0, layer));
  EXPECT_FALSE(IsPossible(hosted, 2, layer));
  EXPECT_FALSE(IsPossible(hosted, 3, layer));
}

TEST(PlacementTest, ALastResortIsNotUsedForSharedExperts) {
  ModelDescription model = TwoLayers(1);
  model.layers[0].shared_intermediate_size = 4;
  const Placement placement = Offers().Add(0, 2, {0, 1}, 0, 1, true).Add(1, 5, {0}).Build(model);
  EXPECT_TRUE(placement.complete());
  EXPECT_TRUE((*placement.Layer(2))[1].missing());
}

TEST(PlacementTest, NothingIsPlacedToBeginWith) {
  EXPECT_FALSE(Placement().complete());
  EXPECT_THAT(Placement().missing(), IsEmpty());
}

}  // namespace
}  // namespace expertmesh::mesh
