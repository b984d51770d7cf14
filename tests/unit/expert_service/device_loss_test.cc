#include "expert_service/device_loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>

#include "expert_service/device_metrics.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::HasSubstr;

const absl::Status kWhy = absl::UnavailableError("cudaStreamSynchronize: an illegal memory access");

class DeviceLossTest : public testing::Test {
 protected:
  DeviceLossTest() {
    NodeOptions options;
    options.node_id = "node-a";
    options.cpu_time = NoCpuTime;
    node_ = Node::Create(options, MakeCheckpoint(), &backend_, &clock_, registry_).value();
    EXPECT_TRUE(node_->Load({{{1, {0, 1}, {}}}}).ok());
    stream_ = node_->OpenCompute(sink_);
  }

  void Send(const TestBatch& batch) {
    for (Frame& frame : MakeFrames(batch, 16)) {
      stream_->OnFrame(std::move(frame));
    }
  }

  TestBatch Random(uint64_t id) { return RandomBatch(&random_, id, 1, 3, {0, 1}); }

  void ExpectLost() {
    const v1::NodeDescription description = node_->Describe();
    EXPECT_EQ(description.state(), v1::NODE_STATE_FAILED);
    EXPECT_THAT(description.message(), HasSubstr("an illegal memory access"));
    EXPECT_EQ(description.hosted_size(), 0);
  }

  FakeBackend backend_;
  FakeClock clock_;
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  std::mt19937 random_{5};
  std::shared_ptr<FakeSink> sink_ = std::make_shared<FakeSink>();
  std::unique_ptr<Node> node_;
  std::unique_ptr<StreamHandler> stream_;
  int stops_ = 0;
  DeviceLoss loss_{[this] { ++stops_; }};
};

TEST_F(DeviceLossTest, TheNodeHoldsNothingAndRefusesAllWithTheReason) {
  loss_.Tell(node_.get());
  int heard = 0;
  const auto subscription = node_->Subscribe([&heard] { ++heard; });
  const uint64_t version = node_->Status().version();
  EXPECT_TRUE(loss_.status().ok());
  loss_.Lost(kWhy);
  EXPECT_EQ(loss_.status(), kWhy);
  EXPECT_EQ(stops_, 1);
  EXPECT_EQ(heard, 1);
  EXPECT_GT(node_->Status().version(), version);
  ExpectLost();
  Send(Random(7));
  const FakeSink::Answer answer = sink_->Get(7);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("lost its device"));
  EXPECT_TRUE(backend_.calls().empty());
  internal::v1::LoadExpertsRequest load;
  EXPECT_EQ(node_->LoadExperts(load).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(MetricValue(*registry_, "expertmesh_expert_state{state=\"failed\"}"), "1");
}

TEST_F(DeviceLossTest, ItStaysFailedWhileItDrains) {
  loss_.Tell(node_.get());
  loss_.Lost(kWhy);
  EXPECT_TRUE(node_->Drain(absl::ZeroDuration(), clock_.Now()));
  ExpectLost();
}

TEST_F(DeviceLossTest, ABatchUnderWayIsAnsweredOnce) {
  loss_.Tell(node_.get());
  backend_.Hold();
  const TestBatch batch = Random(3);
  Send(batch);
  backend_.AwaitHeld();
  loss_.Lost(kWhy);
  backend_.Release();
  sink_->Await(3, batch.rows());
  EXPECT_TRUE(node_->Drain(absl::ZeroDuration(), absl::InfiniteFuture()));
  EXPECT_FALSE(sink_->Get(3).malformed);
}

TEST_F(DeviceLossTest, OnlyTheFirstLossCounts) {
  loss_.Tell(node_.get());
  loss_.Lost(kWhy);
  loss_.Lost(absl::InternalError("cudaFree: an illegal memory access"));
  EXPECT_EQ(loss_.status(), kWhy);
  EXPECT_EQ(stops_, 1);
}

TEST_F(DeviceLossTest, ANodeHearsOfWhatWasLostBefore) {
  loss_.Lost(kWhy);
  loss_.Tell(node_.get());
  ExpectLost();
}

TEST_F(DeviceLossTest, ANodeThatIsForgottenHearsNothing) {
  loss_.Tell(node_.get());
  loss_.Tell(nullptr);
  loss_.Lost(kWhy);
  EXPECT_EQ(node_->Describe().state(), v1::NODE_STATE_READY);
}

TEST(DeviceMetricsTest, TellWhatTheDeviceTells) {
  const DeviceMetrics gpu([] { return experts::DeviceStats{5, 7, 1, 2, 3}; });
  EXPECT_EQ(MetricValue(gpu, "expertmesh_expert_device_memory_used_bytes"), "5");
  EXPECT_EQ(MetricValue(gpu, "expertmesh_expert_device_memory_total_bytes"), "7");
  const auto errors = [](const DeviceMetrics& metrics, const std::string& kind) {
    return MetricValue(metrics, "expertmesh_expert_device_errors_total{kind=\"" + kind + "\"}");
  };
  EXPECT_EQ(errors(gpu, "memory"), "1");
  EXPECT_EQ(errors(gpu, "hardware"), "2");
  EXPECT_EQ(errors(gpu, "other"), "3");
  const DeviceMetrics cpu(nullptr);
  EXPECT_EQ(MetricValue(cpu, "expertmesh_expert_device_memory_used_bytes"), "0");
  EXPECT_EQ(errors(cpu, "hardware"), "0");
}

}  // namespace
}  // namespace expertmesh::node
