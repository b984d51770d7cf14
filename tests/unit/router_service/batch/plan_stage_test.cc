#include "router_service/batch/plan_stage.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "tests/support/fake_checkpoint.h"
#include "tests/support/scripted_nodes.h"

namespace expertmesh::batch {
namespace {

// Two nodes that may each serve any expert.
class PlanStageTest : public testing::Test {
 protected:
  PlanStageTest() {
    mesh::FleetOptions options;
    options.encodings = *mesh::WireEncodings::Parse("auto", "auto", Dtype::kF32);
    options.biases = std::make_shared<const mesh::SelectBiases>();
    fleet_ =
        std::make_unique<mesh::Fleet>(std::make_shared<FakeCheckpoint>(FakeCheckpointOptions()),
                                      std::move(options), &metrics_, &nodes_, &timers_, &clock_);
    fleet_->SetAddresses({"a:1", "b:1"});
    for (const char* address : {"a:1", "b:1"}) {
      v1::NodeDescription description;
      description.set_node_id(address);
      description.set_state(v1::NODE_STATE_READY);
      description.set_fingerprint(FakeCheckpoint(FakeCheckpointOptions()).fingerprint());
      nodes_.Say(address, description);
    }
    environment_.fleet = fleet_.get();
    environment_.metrics = &metrics_;
    environment_.node_plans = &pool_;
  }
  ~PlanStageTest() override { fleet_->Close(); }

  // Who serves the one row of a part of `layer`, which goes to its only expert, once it was lost.
  mesh::NodeIndex ServesAgain(uint32_t layer, const std::vector<mesh::ExpertReplicas>& replicas) {
    LayerRuntime runtime;
    runtime.description.layer = layer;
    Batch batch;
    batch.environment = &environment_;
    batch.layer = &runtime;
    BatchPart part;
    part.plan.rows = {0};
    part.plan.row_begin = {0, 1};
    part.plan.expert_ids = {0};
    part.plan.expert_weights = {1};
    const plan::BatchPlan& plan = stage_.PlanAgain(batch, part, *fleet_->view(), replicas);
    EXPECT_EQ(plan.nodes.size(), 1u);
    return plan.nodes.front().node;
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  ScriptedNodes nodes_;
  std::unique_ptr<mesh::Fleet> fleet_;
  plan::NodePlanPool pool_;
  BatchEnvironment environment_;
  PlanStage stage_;
};

TEST_F(PlanStageTest, WhatIsPlannedAgainIsBookedToItsOwnLayer) {
  const std::vector<mesh::ExpertReplicas> halves = {{{{0, 1}}, {{0.5f, 0.5f}}}};
  EXPECT_EQ(ServesAgain(3, halves), 0u);
  EXPECT_EQ(ServesAgain(0, halves), 0u);  // Owes nothing for layer 3.
  EXPECT_EQ(ServesAgain(3, halves), 1u);
  EXPECT_EQ(ServesAgain(0, halves), 1u);
}

}  // namespace
}  // namespace expertmesh::batch
