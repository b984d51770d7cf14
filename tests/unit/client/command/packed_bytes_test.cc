#include "client/cpp/command/packed_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/experts/backend_factory.h"
#include "tests/unit/common/checkpoint/made_checkpoint.h"

namespace expertmesh::command {
namespace {

using ::testing::HasSubstr;

class PackedBytesTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(testing::TempDir(), "/packed_bytes_", GetParam(), "_", getpid());
    std::filesystem::remove_all(folder_);
    checkpoint::SyntheticOptions options = checkpoint::Small(GetParam());
    options.d_model = 64;
    options.intermediate_size = 96;
    checkpoint_ = checkpoint::Make(folder_, options);
    ASSERT_NE(checkpoint_, nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // What a node really holds for one expert.
  uint64_t Held(experts::WeightStorage weights) {
    const auto backend = experts::MakeBackend(
        "cpu", {.compute_dtype = Dtype::kBF16, .threads = 1, .weights = weights});
    const MoeLayerDescription& layer = checkpoint_->model().layers.front();
    const auto packed =
        (*backend)->Pack(layer.expert, checkpoint_->Expert(layer.layer, 0).value(), {});
    EXPECT_TRUE(packed.ok()) << packed.status();
    return (*packed)->bytes();
  }

  void RemoveWeights() {
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      if (entry.path().filename() != "config.json") {
        std::filesystem::remove(entry.path());
      }
    }
  }

  std::string folder_;
  std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
};

TEST_P(PackedBytesTest, AreWhatANodeHolds) {
  const PackedModel packed = ReadPackedModel(folder_, "bf16", "expanded").value();
  ASSERT_EQ(packed.expert_bytes.size(), checkpoint_->model().layers.size());
  EXPECT_EQ(packed.expert_bytes[0], Held(experts::WeightStorage::kExpanded));
  EXPECT_EQ(packed.compute_dtype, Dtype::kBF16);
  EXPECT_EQ(ReadPackedModel(folder_, "bf16", "compressed").value().expert_bytes[0],
            Held(experts::WeightStorage::kCompressed));
}

TEST_P(PackedBytesTest, AreKnownFromConfigJsonAlone) {
  const std::vector<uint64_t> with = ReadPackedModel(folder_, "bf16", "expanded")->expert_bytes;
  RemoveWeights();
  EXPECT_EQ(ReadPackedModel(folder_, "bf16", "expanded")->expert_bytes, with);
  const auto compressed = ReadPackedModel(folder_, "bf16", "compressed");
  EXPECT_EQ(compressed.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(compressed.status().message(), HasSubstr(folder_));
}

INSTANTIATE_TEST_SUITE_P(Families, PackedBytesTest,
                         ::testing::Values("mixtral", "gpt_oss", "deepseek_v3", "nllb_moe"));

}  // namespace
}  // namespace expertmesh::command
