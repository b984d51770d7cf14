#include "client/cpp/replay/service_time_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/balance/routing_record.h"

namespace expertmesh::replay {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kExperts = 12;
constexpr uint32_t kTopK = 3;
const balance::RecordedModel kModel = {
    .identity = {.fingerprint = "one", .outline = ""},
    .layers = {{.layer = 3, .num_experts = kExperts, .top_k = kTopK}}};
const ServiceTimes kTimes = {.assignment_us = 7,
                             .expert_us = 300,
                             .batch_us = 90,
                             .row_us = 4,
                             .token_us = 11,
                             .hop_us = 500};

// Experts e with e % 3 == n are on node n, which is one of three; node 1 is twice as fast, the link
// of node 2 half as good.
MeshModel ThreeNodes() {
  MeshModel mesh;
  mesh.nodes = {{}, {.speed = 2}, {.link = 2}};
  mesh.expert_bytes = {1};
  mesh.node_memory_bytes = 100;
  return mesh;
}

// As long as kTimes say, by the definition of each of them.
double TimeOf(const MeshModel& mesh, const balance::RecordedBatch& batch) {
  double slowest = 0;
  double together = 0;
  int taking_part = 0;
  for (uint32_t node = 0; node < 3; ++node) {
    std::set<uint32_t> experts;
    std::set<size_t> rows;
    int assignments = 0;
    for (size_t i = 0; i < batch.experts.size(); ++i) {
      if (batch.experts[i] != balance::kNoExpert && batch.experts[i] % 3 == node) {
        ++assignments;
        experts.insert(batch.experts[i]);
        rows.insert(i / kTopK);
      }
    }
    if (assignments == 0) {
      continue;
    }
    ++taking_part;
    const double computing =
        (kTimes.batch_us + kTimes.expert_us * static_cast<double>(experts.size()) +
         kTimes.assignment_us * assignments) /
        mesh.nodes[node].speed;
    const double link = kTimes.row_us * mesh.nodes[node].link * static_cast<double>(rows.size());
    slowest = std::max(slowest, computing + link);
    together += computing;
  }
  if (mesh.parallel_nodes == 1 && taking_part > 1) {
    slowest = std::max(slowest, together);
  }
  return kTimes.hop_us + kTimes.token_us * batch.tokens + slowest;
}

class ServiceTimeFitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(::testing::TempDir()) /
              absl::StrCat("service_time_fit_", info->name(), "_", getpid());
    std::filesystem::create_directories(folder_);
    name_ = folder_ / "record";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Every `held_up`th batch takes ten times as long as it should.
  void Record(const MeshModel& mesh, int batches, int held_up = 0) {
    auto writer = balance::RoutingRecordWriter::Create(name_, kModel, 16 << 20);
    ASSERT_TRUE(writer.ok()) << writer.status();
    std::mt19937 random(5);
    for (int i = 0; i < batches; ++i) {
      balance::RecordedBatch batch;
      batch.time_us = static_cast<uint64_t>(i);
      batch.layer = 3;
      batch.tokens = 1 + random() % (i % 2 == 0 ? 4 : 60);
      // Some batches use few of the experts.
      const uint32_t used = 3 + random() % (kExperts - 2);
      for (uint32_t slot = 0; slot < batch.tokens * kTopK; ++slot) {
        batch.experts.push_back(random() % 20 == 0 ? balance::kNoExpert : random() % used);
      }
      const double held = held_up > 0 && i % held_up == 0 ? 10 : 1;
      batch.batch_us = static_cast<uint32_t>(std::lround(held * TimeOf(mesh, batch)));
      ASSERT_TRUE((*writer)->Add(batch).ok());
    }
  }

  std::filesystem::path folder_;
  std::string name_;
};

void ExpectTimes(const ServiceTimes& times, double error) {
  EXPECT_NEAR(times.assignment_us, kTimes.assignment_us, error * kTimes.assignment_us);
  EXPECT_NEAR(times.expert_us, kTimes.expert_us, error * kTimes.expert_us);
  EXPECT_NEAR(times.batch_us, kTimes.batch_us, error * kTimes.expert_us);
  EXPECT_NEAR(times.row_us, kTimes.row_us, error * kTimes.assignment_us);
  EXPECT_NEAR(times.token_us, kTimes.token_us, error * kTimes.token_us);
  EXPECT_NEAR(times.hop_us, kTimes.hop_us, error * kTimes.hop_us);
}

TEST_F(ServiceTimeFitTest, FindsTheTimesThatBatchesWereMadeOf) {
  Record(ThreeNodes(), 2000);
  const auto fit = FitServiceTimes(name_, ThreeNodes());
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->batches, 2000u);
  EXPECT_LT(fit->median_error, 1e-3);
  ExpectTimes(fit->times, .02);
}

TEST_F(ServiceTimeFitTest, FindsThemWhereNodesShareACore) {
  MeshModel mesh = ThreeNodes();
  mesh.parallel_nodes = 1;
  Record(mesh, 2000);
  const auto fit = FitServiceTimes(name_, mesh);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_LT(fit->median_error, 1e-3);
  EXPECT_NEAR(fit->times.expert_us, kTimes.expert_us, 6);
  EXPECT_NEAR(fit->times.token_us, kTimes.token_us, .5);
}

TEST_F(ServiceTimeFitTest, BatchesThatWereHeldUpCountLittle) {
  Record(ThreeNodes(), 2000, 7);
  const auto fit = FitServiceTimes(name_, ThreeNodes());
  ASSERT_TRUE(fit.ok()) << fit.status();
  ExpectTimes(fit->times, .05);
}

TEST_F(ServiceTimeFitTest, ThinsOutWhatIsTooMuch) {
  MeshModel mesh = ThreeNodes();
  Record(mesh, 2000);
  // 4,096 nodes, most of which hold nothing: parts of 256 batches are kept at most.
  mesh.nodes.resize(kMaxSimulatedNodes);
  mesh.deal = Deal::kTurns;
  const auto fit = FitServiceTimes(name_, mesh);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_LE(fit->batches, 256u);
  EXPECT_GE(fit->batches, 100u);
}

TEST_F(ServiceTimeFitTest, SaysWhyItCannot) {
  EXPECT_EQ(FitServiceTimes(name_, ThreeNodes()).status().code(), absl::StatusCode::kNotFound);
  Record(ThreeNodes(), 99);
  const absl::Status few = FitServiceTimes(name_, ThreeNodes()).status();
  EXPECT_EQ(few.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(few.message(), HasSubstr("99 batches have a duration, of 100 that a fit needs"));
  MeshModel copies = ThreeNodes();
  copies.copies = 2;
  EXPECT_THAT(FitServiceTimes(name_, copies).status().message(),
              HasSubstr("which of them a batch used is not recorded"));
}

}  // namespace
}  // namespace expertmesh::replay
