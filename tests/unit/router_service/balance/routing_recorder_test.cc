#include "router_service/balance/routing_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace expertmesh::balance_control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

balance::RecordedModel Model() {
  balance::RecordedModel model;
  model.identity = {std::string(64, 'f'), std::string(64, 'e')};
  model.layers = {{3, 8, 2}};
  return model;
}

class RoutingRecorderTest : public testing::Test {
 protected:
  RoutingRecorderTest() {
    const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
    name_ = testing::TempDir() + "/routing_recorder_" + test.name();
    Remove();
  }
  ~RoutingRecorderTest() override { Remove(); }
  void Remove() const {
    std::remove(name_.c_str());
    std::remove((name_ + ".1").c_str());
  }

  static absl::Time Noon() { return absl::UnixEpoch() + absl::Hours(12); }

  std::string name_;
};

TEST_F(RoutingRecorderTest, WritesWhatBatchesDid) {
  gate::RoutedTokens routed;
  routed.token_begin = {0, 2, 3};
  routed.expert_ids = {7, 1, 4};  // The second token lost one of its experts.
  {
    auto recorder = *RoutingRecorder::Create(name_, Model(), 1 << 20, &Noon);
    recorder->Add({3, 9, absl::Microseconds(120), 80}, routed);
    recorder->Add({4, 9, absl::Microseconds(120), 80}, routed);  // A layer that is not recorded.
  }
  auto reader = *balance::RoutingRecordReader::Open(name_);
  balance::RecordedBatch batch;
  ASSERT_TRUE(*reader->Next(&batch));
  EXPECT_EQ(batch.time_us, uint64_t{12} * 3600 * 1'000'000);
  EXPECT_EQ(batch.layer, 3u);
  EXPECT_EQ(batch.epoch, 9u);
  EXPECT_EQ(batch.tokens, 2u);
  EXPECT_EQ(batch.batch_us, 120u);
  EXPECT_EQ(batch.node_us, 80u);
  EXPECT_THAT(batch.experts, ElementsAre(7, 1, 4, balance::kNoExpert));
  EXPECT_FALSE(*reader->Next(&batch));
}

TEST_F(RoutingRecorderTest, WhatDoesNotFitIsLeftOutAndCounted) {
  gate::RoutedTokens large;
  const size_t tokens = RoutingRecorder::kMostWaiting / 4;
  large.token_begin.assign(tokens + 1, 0);
  auto recorder = *RoutingRecorder::Create(name_, Model(), 1 << 20, &Noon);
  recorder->Add({3, 9, absl::ZeroDuration(), 0}, large);
  EXPECT_EQ(recorder->left_out(), 1u);
  EXPECT_EQ(recorder->recorded(), 0u);
}

TEST_F(RoutingRecorderTest, AFileOfSomethingElseIsRefusedAndStays) {
  std::FILE* file = std::fopen(name_.c_str(), "w");
  std::fputs("a diary, which is no recording of routing", file);
  std::fclose(file);
  const absl::Status status = RoutingRecorder::Create(name_, Model(), 1 << 20, &Noon).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(status.message(), HasSubstr(name_));
}

}  // namespace
}  // namespace expertmesh::balance_control
