// Random plans on random nodes that fail at random. SimMesh checks, from what nodes really hold and
// routers really follow, that no copy is let go of while some router has no other one, that memory
// and chunks are kept, and that a node has one request at a time; here, how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "common/wire/error_reason.h"
#include "router_service/moves/placement_move.h"
#include "tests/unit/router_service/moves/sim_mesh.h"

namespace expertmesh::moves {
namespace {

using balance::PlacementPlan;

constexpr uint32_t kLayers = 2;
constexpr uint32_t kExperts = 6;

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }
  bool Chance(uint32_t of_hundred) { return Below(100) < of_hundred; }

 private:
  std::mt19937_64 random_;
};

std::string Name(uint32_t node) { return std::string(1, static_cast<char>('a' + node)); }

PlacementPlan RandomPlan(Dice* dice, uint32_t nodes) {
  PlacementPlan plan;
  for (uint32_t node = 0; node < nodes; ++node) {
    plan.nodes.push_back(Name(node));
  }
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    plan.layers.push_back({layer, {}});
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      const uint32_t copies = 1 + (dice->Chance(40) ? dice->Below(nodes) : 0);
      const uint32_t first = dice->Below(nodes);
      std::vector<balance::ExpertCopy>& of_it = plan.layers.back().experts.emplace_back();
      for (uint32_t i = 0; i < copies; ++i) {
        of_it.push_back({(first + i) % nodes, 1.0f / static_cast<float>(copies)});
      }
      std::sort(of_it.begin(), of_it.end(),
                [](const auto& a, const auto& b) { return a.node < b.node; });
    }
  }
  return plan;
}

std::vector<std::vector<ExpertKey>> KeysByNode(const PlacementPlan& plan) {
  std::vector<std::vector<ExpertKey>> keys(plan.nodes.size());
  for (const balance::LayerPlacement& layer : plan.layers) {
    for (uint32_t expert = 0; expert < layer.experts.size(); ++expert) {
      for (const balance::ExpertCopy& copy : layer.experts[expert]) {
        keys[copy.node].push_back({layer.layer, expert});
      }
    }
  }
  return keys;
}

// One mesh and what happens to it.
class Story {
 public:
  explicit Story(uint64_t seed)
      : dice_(seed),
        nodes_(2 + dice_.Below(4)),
        before_(RandomPlan(&dice_, nodes_)),
        after_(RandomPlan(&dice_, nodes_)),
        mesh_(Options(), {{0, 7}, {1, 7}}) {
    const auto had = KeysByNode(before_);
    const auto wanted = KeysByNode(after_);
    const bool limited = dice_.Chance(50);
    for (uint32_t node = 0; node < nodes_; ++node) {
      const size_t most = std::max(had[node].size(), wanted[node].size()) + dice_.Below(3);
      mesh_.AddNode(Name(node), had[node], limited ? most * kExpertBytes : 0);
    }
    if (dice_.Chance(60)) {
      mesh_.Adopt(before_);
    }
  }

  void Tell() {
    ASSERT_TRUE(mesh_.Start(after_).ok());
    const uint32_t troubles = dice_.Below(6);
    for (uint32_t i = 0; i < troubles; ++i) {
      const uint32_t steps = dice_.Below(8);
      for (uint32_t step = 0; step < steps; ++step) {
        mesh_.Advance();
      }
      Trouble();
    }
    for (uint32_t node = 0; node < nodes_; ++node) {
      mesh_.AnswerNext(Name(node), 0, absl::OkStatus());
      if (!mesh_.up(Name(node)) && dice_.Chance(70)) {
        ComeBack(node);
      }
    }
    ASSERT_TRUE(mesh_.Run()) << absl::StrCat(mesh_.move().progress(mesh_.now()).waits_for);
    for (uint32_t node = 0; node < nodes_; ++node) {
      if (!mesh_.up(Name(node))) {
        ComeBack(node);
      }
    }
    for (int i = 0; i < 1000; ++i) {
      mesh_.Advance();
    }
    CheckEnd();
  }
  const SimMesh& mesh() const { return mesh_; }

 private:
  static MoverOptions Options() {
    MoverOptions options;
    options.chunk_bytes = 2 * kExpertBytes;
    options.bytes_per_second = 50 * kExpertBytes;
    options.node_bytes_per_second = 30 * kExpertBytes;
    options.patience = absl::Seconds(20);
    return options;
  }

  void ComeBack(uint32_t node) {
    if (dice_.Chance(50)) {
      mesh_.Restart(Name(node));
    } else {
      mesh_.Return(Name(node));
    }
  }

  void Trouble() {
    const uint32_t node = dice_.Below(nodes_);
    const auto calls = static_cast<int>(1 + dice_.Below(3));
    switch (dice_.Below(6)) {
      case 0:
      case 1:
        if (mesh_.up(Name(node))) {
          mesh_.Kill(Name(node), dice_.Chance(50));
        } else {
          ComeBack(node);
        }
        return;
      case 2:
        mesh_.AnswerNext(Name(node), calls, absl::UnavailableError("lost"), dice_.Chance(50));
        return;
      case 3:
        mesh_.AnswerNext(Name(node), 1, absl::InternalError("refused"));
        return;
      case 4:
        mesh_.AnswerNext(Name(node), 1, absl::OkStatus());  // A lie.
        return;
      default:
        mesh_.move().Abort(absl::CancelledError("by the test")).IgnoreError();
    }
  }

  void CheckEnd() {
    ASSERT_FALSE(mesh_.outcomes.empty());
    EXPECT_EQ(mesh_.phase(), MovePhase::kIdle);
    const MoveOutcome& outcome = mesh_.outcomes.front();
    const PlanPtr in_force = mesh_.move().in_force();
    ASSERT_EQ(mesh_.followed().size(), 1u);
    EXPECT_EQ(*mesh_.followed().begin(), in_force);
    if (outcome.status.ok() && !outcome.repair) {
      EXPECT_EQ(*in_force, after_);
    }
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t expert = 0; expert < kExperts; ++expert) {
        bool held = false;
        for (uint32_t node = 0; node < nodes_; ++node) {
          held = held || mesh_.Holds(Name(node), {layer, expert});
        }
        EXPECT_TRUE(held) << layer << "/" << expert;
      }
    }
    if (in_force == nullptr) {
      return;
    }
    // With all nodes back, they hold what routers follow and nothing else.
    const auto keys = KeysByNode(*in_force);
    for (size_t node = 0; node < keys.size(); ++node) {
      EXPECT_THAT(mesh_.held(in_force->nodes[node]), testing::UnorderedElementsAreArray(keys[node]))
          << in_force->nodes[node];
    }
  }

  Dice dice_;
  const uint32_t nodes_;
  const PlacementPlan before_;
  const PlacementPlan after_;
  SimMesh mesh_;
};

TEST(PlacementMovePropertyTest, WhateverHappensSomeCopyServesAndNodesEndUpWithAPlan) {
  int moved = 0;
  int undone = 0;
  for (uint64_t seed = 0; seed < 800; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Story story(seed);
    story.Tell();
    if (HasFailure()) {
      for (const std::string& line : story.mesh().log) {
        ADD_FAILURE() << line;
      }
      return;
    }
    const bool ok = story.mesh().outcomes.front().status.ok();
    moved += ok ? 1 : 0;
    undone += ok ? 0 : 1;
  }
  EXPECT_GT(moved, 100);
  EXPECT_GT(undone, 100);
}

}  // namespace
}  // namespace expertmesh::moves
