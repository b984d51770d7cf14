#include "client/cpp/replay/recorded_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace expertmesh::replay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const balance::RecordedModel kModel = {.identity = {.fingerprint = "one", .outline = ""},
                                       .layers = {{.layer = 0, .num_experts = 2, .top_k = 1},
                                                  {.layer = 2, .num_experts = 3, .top_k = 2}}};

class RecordedLoadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(::testing::TempDir()) /
              absl::StrCat("recorded_load_", info->name(), "_", getpid());
    std::filesystem::create_directories(folder_);
    name_ = folder_ / "record";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const balance::RecordedModel& model,
             const std::vector<balance::RecordedBatch>& batches) {
    auto writer = balance::RoutingRecordWriter::Create(name_, model, 1 << 20);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const balance::RecordedBatch& batch : batches) {
      ASSERT_TRUE((*writer)->Add(batch).ok());
    }
  }

  std::filesystem::path folder_;
  std::string name_;
};

TEST_F(RecordedLoadTest, AddsUpByInterval) {
  Write(kModel,
        {{.time_us = 5'000'000, .layer = 0, .tokens = 4, .batch_us = 100, .experts = {0, 0, 0, 1}},
         {.time_us = 5'900'000, .layer = 0, .tokens = 2, .batch_us = 300, .experts = {1, 1}},
         {.time_us = 5'950'000, .layer = 2, .tokens = 1, .experts = {2, balance::kNoExpert}},
         // A minute later, with nothing between.
         {.time_us = 65'500'000, .layer = 0, .tokens = 1, .experts = {0}}});
  auto load = RecordedLoad::Read(name_, 1);
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_FALSE((*load)->has_scores());
  ASSERT_EQ((*load)->intervals(), 2u);
  IntervalLoad interval;
  (*load)->Next(&interval);
  EXPECT_EQ(interval.start_s, 0);
  EXPECT_EQ(interval.layers[0].tokens, 6);
  ASSERT_EQ(interval.layers[0].batch_sizes.size(), 2u);
  EXPECT_EQ(interval.layers[0].batch_sizes[0].tokens, 2);
  EXPECT_EQ(interval.layers[0].batch_sizes[1].tokens, 4);
  EXPECT_EQ(interval.layers[0].batch_sizes[1].batches, 1);
  EXPECT_THAT(interval.layers[0].assignments, ElementsAre(3, 3));
  EXPECT_DOUBLE_EQ(interval.layers[0].batch_violation, (.5 + 1) / 2) << "of each batch";
  EXPECT_THAT(interval.layers[1].assignments, ElementsAre(0, 0, 1));
  (*load)->Next(&interval);
  EXPECT_EQ(interval.start_s, 60);
  EXPECT_EQ(interval.layers[1].tokens, 0);
  EXPECT_THAT(interval.layers[1].assignments, ElementsAre(0, 0, 0));
  EXPECT_THAT((*load)->Assignments(), ElementsAre(ElementsAre(4, 3), ElementsAre(0, 0, 1)));
  EXPECT_NEAR((*load)->durations().Quantile(.5), 100, 2);
  EXPECT_NEAR((*load)->durations().Quantile(.99), 300, 6);
  EXPECT_NEAR((*load)->TokensPerSecond(), 8 / 2.0 / 60.5, 1e-9);
  EXPECT_THAT((*load)->Describe(), HasSubstr("4 batches in 60.5 s, measured p50 "));
}

TEST_F(RecordedLoadTest, TakesTheOlderFileOfTheSameModel) {
  Write(kModel, {{.time_us = 1'000'000, .layer = 0, .tokens = 1, .experts = {0}}});
  Write(kModel, {{.time_us = 2'000'000, .layer = 0, .tokens = 1, .experts = {1}}});
  auto load = RecordedLoad::Read(name_, 10);
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_THAT((*load)->Assignments()[0], ElementsAre(1, 1));
  balance::RecordedModel other = kModel;
  other.identity.fingerprint = "two";
  Write(other, {{.time_us = 3'000'000, .layer = 0, .tokens = 1, .experts = {1}}});
  load = RecordedLoad::Read(name_, 10);
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_THAT((*load)->Assignments()[0], ElementsAre(0, 1));
  EXPECT_THAT((*load)->Describe(), HasSubstr("record.1, which is of another model"));
}

TEST_F(RecordedLoadTest, SaysWhatItDidNotRead) {
  Write(kModel, {{.time_us = 1, .layer = 0, .tokens = 1, .experts = {0}},
                 {.time_us = 2, .layer = 0, .tokens = 1, .experts = {0}}});
  std::filesystem::resize_file(name_, std::filesystem::file_size(name_) - 3);
  auto load = RecordedLoad::Read(name_, 10);
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_THAT((*load)->Describe(), HasSubstr("1 batches"));
  EXPECT_THAT((*load)->Describe(), HasSubstr("cut off within a batch (50 bytes not read)"));
}

TEST_F(RecordedLoadTest, RefusesWhatCannotBeReplayed) {
  EXPECT_EQ(RecordedLoad::Read(name_, 1).status().code(), absl::StatusCode::kNotFound);
  Write(kModel, {});
  EXPECT_THAT(RecordedLoad::Read(name_, 1).status().message(), HasSubstr("has no batches"));
  EXPECT_THAT(RecordedLoad::Read(name_, 0).status().message(), HasSubstr("interval is 0 s"));
}

}  // namespace
}  // namespace expertmesh::replay
