#include "client/cpp/replay/mesh_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace expertmesh::replay {
namespace {

using balance::ExpertCopy;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<balance::RecordedLayer> kLayers = {{.layer = 1, .num_experts = 3, .top_k = 1},
                                                     {.layer = 4, .num_experts = 3, .top_k = 1}};

MeshModel FourNodes() {
  MeshModel mesh;
  mesh.nodes.resize(4);
  mesh.expert_bytes = {10, 20};
  mesh.node_memory_bytes = 100;
  return mesh;
}

TEST(FirstPlacementTest, DealsExpertsOutInTurns) {
  const auto placement = FirstPlacement(FourNodes(), kLayers);
  ASSERT_EQ(placement.size(), 2u);
  EXPECT_EQ(placement[1].layer, 4u);
  EXPECT_THAT(placement[0].experts[2], ElementsAre(ExpertCopy{2, 1}));
  EXPECT_THAT(placement[1].experts[0], ElementsAre(ExpertCopy{3, 1}));
  EXPECT_THAT(placement[1].experts[1], ElementsAre(ExpertCopy{0, 1}));
}

TEST(FirstPlacementTest, CopiesAreApartAndOnNodesThatAreThere) {
  MeshModel mesh = FourNodes();
  mesh.copies = 2;
  EXPECT_THAT(FirstPlacement(mesh, kLayers)[0].experts[1],
              ElementsAre(ExpertCopy{1, .5f}, ExpertCopy{3, .5f}));
  mesh.nodes[1].present = false;
  mesh.nodes.push_back({});
  for (const auto& layer : FirstPlacement(mesh, kLayers)) {
    for (const auto& copies : layer.experts) {
      ASSERT_EQ(copies.size(), 2u);
      EXPECT_LT(copies[0].node, copies[1].node);
      EXPECT_NE(copies[0].node, 1u);
      EXPECT_NE(copies[1].node, 1u);
    }
  }
}

TEST(FirstPlacementTest, ShardsAreRunsAsNodesTakeThem) {
  MeshModel mesh = FourNodes();
  mesh.deal = Deal::kShards;
  mesh.copies = 2;
  // Runs begin at floor(10 i / 4): 0, 2, 5, 7.
  const auto placement = FirstPlacement(
      mesh, std::vector<balance::RecordedLayer>{{.layer = 0, .num_experts = 10, .top_k = 1}});
  std::vector<uint32_t> first;
  std::vector<uint32_t> second;
  for (const auto& copies : placement[0].experts) {
    ASSERT_EQ(copies.size(), 2u);
    first.push_back(copies[0].node);
    second.push_back(copies[1].node);
  }
  EXPECT_THAT(first, ElementsAre(0, 0, 1, 1, 1, 2, 2, 0, 0, 0));
  EXPECT_THAT(second, ElementsAre(1, 1, 2, 2, 2, 3, 3, 3, 3, 3));
}

TEST(ValidateMeshModelTest, NamesWhatIsWrong) {
  const auto error = [](const MeshModel& mesh) {
    return std::string(ValidateMeshModel(mesh, kLayers).message());
  };
  EXPECT_EQ(error(FourNodes()), "");
  MeshModel mesh = FourNodes();
  mesh.nodes.resize(5000);
  EXPECT_THAT(error(mesh), HasSubstr("5000 nodes; use 1 to 4096"));
  mesh = FourNodes();
  mesh.nodes[2].speed = 0;
  EXPECT_THAT(error(mesh), HasSubstr("speed of a node is 0"));
  mesh = FourNodes();
  mesh.copies = 5;
  EXPECT_THAT(error(mesh), HasSubstr("5 copies of each expert; use 1 to 4"));
  mesh = FourNodes();
  mesh.times.assignment_us = -1;
  EXPECT_THAT(error(mesh), HasSubstr("time of an assignment is -1"));
  mesh = FourNodes();
  mesh.deal = Deal::kShards;
  EXPECT_THAT(error(mesh), HasSubstr("layer 1 has 3 experts, fewer than the 4 shards"));
  mesh = FourNodes();
  mesh.times.expert_us = std::nan("");
  EXPECT_THAT(error(mesh), HasSubstr("time of an expert is nan"));
  mesh = FourNodes();
  mesh.events = {{.at_s = 5, .node = 7}};
  EXPECT_THAT(error(mesh), HasSubstr("node 7 fails or joins; the mesh has nodes 0 to 3"));
  mesh.events = {{.at_s = 5, .node = 1}, {.at_s = 4, .node = 1}};
  EXPECT_THAT(error(mesh), HasSubstr("events at 4 s after 5 s"));
  mesh = FourNodes();
  mesh.node_memory_bytes = 29;
  EXPECT_EQ(ValidateMeshModel(mesh, kLayers).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(error(mesh),
              HasSubstr("a node would hold 30 bytes of experts, and has memory for 29"));
}

}  // namespace
}  // namespace expertmesh::replay
