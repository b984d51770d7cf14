#include "expert_service/expert_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<LayerExperts> Select(const SelectionFlags& flags) {
  absl::StatusOr<std::vector<LayerExperts>> selection =
      SelectExperts(flags, MakeCheckpoint()->model());
  EXPECT_TRUE(selection.ok()) << selection.status();
  return selection.ok() ? *selection : std::vector<LayerExperts>();
}

// The flags are refused with INVALID_ARGUMENT naming all of `parts`.
void ExpectRefused(const SelectionFlags& flags, const std::vector<std::string>& parts) {
  const absl::Status status = SelectExperts(flags, MakeCheckpoint()->model()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  for (const std::string& part : parts) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

TEST(ExpertSelectionTest, NoFlagsMeanEverything) {
  const std::vector<LayerExperts> all = Select({});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].layer, 1u);
  EXPECT_EQ(all[2].layer, 4u);
  EXPECT_THAT(all[1].experts, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(all[1].slice, (IntermediateSlice{0, 1}));
}

TEST(ExpertSelectionTest, LayersAndExpertsAreRangesAndNumbers) {
  SelectionFlags flags;
  flags.layers = "4,1-2";
  flags.experts = "8,0-2,1";
  flags.slice = "1/2";
  const std::vector<LayerExperts> chosen = Select(flags);
  ASSERT_EQ(chosen.size(), 3u);
  for (const LayerExperts& layer : chosen) {
    EXPECT_THAT(layer.experts, ElementsAre(0, 1, 2, 8));
    EXPECT_EQ(layer.slice, (IntermediateSlice{1, 2}));
  }
}

TEST(ExpertSelectionTest, ShardsDealEveryExpertOnceInEvenContiguousRuns) {
  for (uint32_t count = 1; count <= kNumExperts; ++count) {
    std::vector<uint32_t> dealt;
    for (uint32_t shard = 0; shard < count; ++shard) {
      SelectionFlags flags;
      flags.shard = std::to_string(shard) + "/" + std::to_string(count);
      const std::vector<uint32_t> experts = Select(flags)[0].experts;
      EXPECT_GE(experts.size(), kNumExperts / count);
      EXPECT_LE(experts.size(), (kNumExperts + count - 1) / count);
      dealt.insert(dealt.end(), experts.begin(), experts.end());
    }
    EXPECT_THAT(dealt, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)) << count << " shards";
  }
}

TEST(ExpertSelectionTest, ReplicasOfARunAreHeldByTheShardsAfterIt) {
  for (uint32_t count = 1; count <= 7; ++count) {
    for (uint32_t replicas = 1; replicas <= count; ++replicas) {
      std::vector<uint32_t> holders(kNumExperts, 0);
      for (uint32_t shard = 0; shard < count; ++shard) {
        SelectionFlags flags;
        flags.shard = std::to_string(shard) + "/" + std::to_string(count);
        flags.replicas = replicas;
        const std::vector<uint32_t> experts = Select(flags)[0].experts;
        EXPECT_TRUE(std::is_sorted(experts.begin(), experts.end()));
        for (const uint32_t expert : experts) {
          ++holders[expert];
        }
      }
      EXPECT_THAT(holders, testing::Each(replicas)) << count << " shards";
    }
  }
  SelectionFlags flags;  // Shard 0 of 5 with 2 replicas: its own run and that of shard 4.
  flags.shard = "0/5";
  flags.replicas = 2;
  EXPECT_THAT(Select(flags)[0].experts, ElementsAre(0, 1, 8, 9));
}

TEST(ExpertSelectionTest, SharedExpertsAreOnePastTheOthersOfEachSelectedLayer) {
  const std::shared_ptr<FakeCheckpoint> checkpoint = MakeCheckpointWithShared(12);
  SelectionFlags flags;
  flags.layers = "2,4";
  flags.shard = "0/5";
  flags.slice = "1/4";
  EXPECT_THAT((*SelectExperts(flags, checkpoint->model()))[0].experts, ElementsAre(0, 1));
  flags.shared_experts = true;
  const absl::StatusOr<std::vector<LayerExperts>> selection =
      SelectExperts(flags, checkpoint->model());
  ASSERT_TRUE(selection.ok()) << selection.status();
  EXPECT_THAT(*selection,
              ElementsAre(LayerExperts{2, {0, 1}, {1, 4}}, LayerExperts{2, {kNumExperts}, {}},
                          LayerExperts{4, {0, 1}, {1, 4}}, LayerExperts{4, {kNumExperts}, {}}));
  flags.slice = "";
  EXPECT_THAT(*SelectExperts(flags, checkpoint->model()),
              ElementsAre(LayerExperts{2, {0, 1, kNumExperts}, {}},
                          LayerExperts{4, {0, 1, kNumExperts}, {}}));
  ExpectRefused(flags, {"--shared-experts", "leave the flag out"});
}

TEST(ExpertSelectionTest, BadSpecsAreRefusedByName) {
  SelectionFlags flags;
  flags.layers = "0-2";
  ExpectRefused(flags, {"--layers=0-2", "layer 0 is not a MoE layer", "1-2,4"});
  for (const char* value : {"", "x", "1-", "-1", "1,,2", "1-2-3", "2.5"}) {
    flags = {};
    flags.experts = std::string(value).empty() ? "," : value;
    ExpectRefused(flags, {"--experts=", "is no number or range"});
  }
  flags = {};
  flags.experts = "5-3";
  ExpectRefused(flags, {"--experts=5-3", "ends before it begins"});
  flags.experts = "0-4294967295";
  ExpectRefused(flags, {"--experts=0-4294967295", "numbers go from 0 to 9"});
  for (const char* value : {"4/4", "1", "1/0", "a/b", "1/2/3", "-1/4", "/"}) {
    flags = {};
    flags.shard = value;
    ExpectRefused(flags, {"--shard=", "i/n"});
    flags = {};
    flags.slice = value;
    ExpectRefused(flags, {"--slice=", "i/n"});
  }
  flags = {};
  flags.shard = "0/11";
  ExpectRefused(flags, {"--shard=0/11", "only 10 experts"});
  flags.shard = "0/4";
  flags.replicas = 5;
  ExpectRefused(flags, {"--replicas=5", "4"});
  flags.replicas = 0;
  ExpectRefused(flags, {"--replicas=0"});
  flags.replicas = 1;
  flags.experts = "1";
  ExpectRefused(flags, {"--shard=0/4", "--experts"});
  flags = {};
  flags.replicas = 2;
  ExpectRefused(flags, {"--replicas=2", "--shard"});
  flags = {};
  flags.slice = "0/3";
  ExpectRefused(flags, {"--slice=0/3", "8", "not divisible by 3"});
}

}  // namespace
}  // namespace expertmesh::node
