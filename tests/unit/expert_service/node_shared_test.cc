// A node that holds shared experts: it computes them like any expert, beside the others of a batch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "expert_service/node.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::HasSubstr;

const std::vector<uint32_t> kAllAndShared = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, kNumExperts};

class NodeSharedTest : public testing::Test {
 protected:
  void Start(std::shared_ptr<FakeCheckpoint> checkpoint) {
    checkpoint_ = std::move(checkpoint);
    registry_ = std::make_shared<prometheus::Registry>();
    NodeOptions options;
    options.node_id = "node-a";
    options.cpu_time = NoCpuTime;
    options.expert_metrics.mode = telemetry::ExpertMetrics::kFull;
    absl::StatusOr<std::unique_ptr<Node>> node =
        Node::Create(options, checkpoint_, &backend_, &clock_, registry_);
    ASSERT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
    stream_ = node_->OpenCompute(sink_);
  }
  void TearDown() override { stream_.reset(); }

  // Every expert of the layer once in each row, the shared ones last.
  TestBatch Everything(uint64_t id, size_t rows) {
    TestBatch batch = RandomBatch(&random_, id, 1, rows, kAllAndShared);
    for (size_t row = 0; row < rows; ++row) {
      batch.experts[row] = kAllAndShared;
      batch.weights[row].assign(kAllAndShared.size(), 1.0f);
    }
    return batch;
  }
  FakeSink::Answer Compute(const TestBatch& batch) {
    for (Frame& frame : MakeFrames(batch, 16)) {
      stream_->OnFrame(std::move(frame));
    }
    return sink_->Await(batch.batch_id, batch.answer_rows());
  }
  static internal::v1::UnloadExpertsRequest UnloadShared() {
    internal::v1::UnloadExpertsRequest request;
    request.add_experts()->set_layer(1);
    request.mutable_experts(0)->add_experts(kNumExperts);
    return request;
  }

  FakeBackend backend_;
  FakeClock clock_;
  std::shared_ptr<FakeCheckpoint> checkpoint_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<Node> node_;
  std::shared_ptr<FakeSink> sink_ = std::make_shared<FakeSink>();
  std::unique_ptr<StreamHandler> stream_;
  std::mt19937 random_{5};
};

TEST_F(NodeSharedTest, ComputesThemBesideTheOthers) {
  Start(MakeCheckpointWithShared(12));
  ASSERT_TRUE(node_->Load({{{1, kAllAndShared, {}}}}).ok());
  for (const bool per_assignment : {false, true}) {
    TestBatch batch = Everything(1 + (per_assignment ? 1 : 0), 20);
    batch.per_assignment = per_assignment;
    const FakeSink::Answer answer = Compute(batch);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_TRUE(SameRows(answer.partials, Expected(batch), kDModel));
  }
  EXPECT_EQ(
      MetricValue(*node_->computed(), "expertmesh_expert_tokens_total{expert=\"10\",layer=\"1\"}"),
      "40");
}

TEST_F(NodeSharedTest, TheyAreLoadedAndUnloadedLikeOthers) {
  Start(MakeCheckpointWithShared(12));
  ASSERT_TRUE(node_->Load({{{1, kAllAndShared, {}}}}).ok());
  const absl::StatusOr<internal::v1::UnloadExpertsResponse> unloaded =
      node_->UnloadExperts(UnloadShared());
  ASSERT_TRUE(unloaded.ok()) << unloaded.status();
  EXPECT_EQ(unloaded->unloaded(), 1u);
  const FakeSink::Answer refused = Compute(Everything(1, 2));
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("does not hold experts 10"));
  internal::v1::LoadExpertsRequest load;
  *load.mutable_experts() = UnloadShared().experts();
  ASSERT_EQ(node_->LoadExperts(load)->loaded(), 1u);
  EXPECT_TRUE(Compute(Everything(2, 2)).status.ok());
}

TEST_F(NodeSharedTest, ALayerWithoutThemHasNoSuchExpert) {
  Start(MakeCheckpoint());
  EXPECT_EQ(node_->Load({{{1, kAllAndShared, {}}}}).code(), absl::StatusCode::kNotFound);
  TestBatch batch = Everything(1, 2);
  batch.experts[1] = {kNumExperts};
  batch.weights[1] = {1.0f};
  batch.experts[0] = {0};
  batch.weights[0] = {1.0f};
  const FakeSink::Answer answer = Compute(batch);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("expert_ids has an entry 10"));
}

}  // namespace
}  // namespace expertmesh::node
