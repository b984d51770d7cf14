#include "common/expert_cache/cache_policy.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::expert_cache {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<CachePolicy> Make(const char* name, std::vector<uint32_t> experts) {
  return *MakeCachePolicy(name, experts);
}

TEST(CachePolicyTest, LruIsByTheLastUseInAnyLayer) {
  const auto policy = Make("lru", {2, 2});
  policy->Use(0, {0});
  policy->Use(1, {1});
  policy->Use(0, {1});
  EXPECT_LT(policy->Worth(0, 0), policy->Worth(1, 1));
  EXPECT_LT(policy->Worth(1, 1), policy->Worth(0, 1));
  EXPECT_LT(policy->Worth(1, 0), policy->Worth(0, 0)) << "what was never used goes first";
  policy->Use(0, {0});
  EXPECT_GT(policy->Worth(0, 0), policy->Worth(0, 1));
}

TEST(CachePolicyTest, FrequencyIsOfTheLayersOwnBatches) {
  const auto policy = Make("frequency", {2, 2});
  for (int i = 0; i < 10; ++i) {
    policy->Use(0, {0});
    policy->Use(0, {0, 1});
  }
  policy->Use(1, {1});
  // Layer 1 had one batch only, and expert 1 was in it.
  EXPECT_EQ(policy->Worth(1, 1), 1);
  EXPECT_EQ(policy->Worth(0, 0), 1);
  EXPECT_NEAR(policy->Worth(0, 1), 0.5, 0.01);
  EXPECT_EQ(policy->Worth(1, 0), 0);
}

// Three layers; expert 0 is in every batch, expert 1 in every other. Batches until the next use,
// after one of layer 0: of layer 1 one, of layer 2 two, of layer 0 three; and three more, a round,
// for what is in one batch of two.
TEST(CachePolicyTest, PredictiveIsByTheBatchesUntilTheNextUse) {
  const auto policy = Make("predictive", {2, 2, 2});
  for (int round = 0; round < 2000; ++round) {
    for (size_t layer = 0; layer < 3; ++layer) {
      // Layers alternate at different times, so that what is used in one tells nothing of the next.
      const bool both = (round >> layer) % 2 == 0;
      policy->Use(layer, both ? std::vector<uint32_t>{0, 1} : std::vector<uint32_t>{0});
    }
  }
  policy->Use(0, {0});
  EXPECT_NEAR(policy->Worth(1, 0), -1, 0.01);
  EXPECT_NEAR(policy->Worth(2, 0), -2, 0.01);
  EXPECT_NEAR(policy->Worth(0, 0), -3, 0.01);
  EXPECT_NEAR(policy->Worth(2, 1), -2 - 3, 0.1);
  EXPECT_NEAR(policy->Worth(0, 1), -3 - 3, 0.1);
}

TEST(CachePolicyTest, PredictiveLearnsWhatFollowsAnExpertInTheNextLayer) {
  const auto policy = Make("predictive", {2, 2});
  for (int round = 0; round < 20000; ++round) {
    const uint32_t expert = round % 2;
    policy->Use(0, {expert});
    policy->Use(1, {1 - expert});
  }
  policy->Use(0, {0});
  EXPECT_NEAR(policy->Worth(1, 1), -1, 0.1) << "it follows expert 0, always";
  EXPECT_LT(policy->Worth(1, 0), -40) << "it never does";
  policy->Use(1, {1});
  policy->Use(0, {1});
  EXPECT_NEAR(policy->Worth(1, 0), -1, 0.1);
}

TEST(CachePolicyTest, PredictiveMakesLittleOfWhatItSawOnce) {
  const auto policy = Make("predictive", {64, 2});
  for (uint32_t round = 0; round < 64; ++round) {
    policy->Use(0, {round});
    policy->Use(1, {round % 2});
  }
  policy->Use(0, {0});
  // Half of the batches have either; expert 0 of layer 0 was followed by expert 0, once.
  EXPECT_NEAR(policy->Worth(1, 0), -1 - 2, 0.3);
  EXPECT_NEAR(policy->Worth(1, 1), -1 - 2, 0.3);
}

TEST(CachePolicyTest, ANameThatIsNoneIsAnError) {
  const std::vector<uint32_t> experts = {2};
  const absl::Status status = MakeCachePolicy("clock", experts).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const std::string& name : CachePolicyNames()) {
    EXPECT_TRUE(MakeCachePolicy(name, experts).ok()) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

}  // namespace
}  // namespace expertmesh::expert_cache
