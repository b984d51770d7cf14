// Checkpoints of which not all files are there.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/checkpoint/expert_digest.h"
#include "common/checkpoint/families.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/tensor/decode_matrix.h"
#include "nlohmann/json.hpp"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"
#include "tests/unit/common/checkpoint/made_checkpoint.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;

std::vector<std::string> WeightFiles(const std::string& directory) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".safetensors") {
      files.push_back(entry.path().string());
    }
  }
  return files;
}

// Weights are those of `whole`, or the error names a file that is missing.
struct Count {
  int same = 0;
  int missing = 0;

  template <typename Weights, typename Compare>
  void Add(const absl::StatusOr<Weights>& weights, const absl::StatusOr<Weights>& whole,
           const std::string& file, const Compare& digest) {
    if (weights.ok()) {
      EXPECT_EQ(digest(*weights), digest(*whole));
      ++same;
    } else if (whole.ok()) {
      ExpectError(weights.status(), StatusCode::kNotFound, file, "not here", "tensor '");
      ++missing;
    }
  }
};

Count Compare(const MoeCheckpoint& partial, const MoeCheckpoint& whole, const std::string& file) {
  Count count;
  for (const MoeLayerDescription& layer : whole.model().layers) {
    for (uint32_t expert = 0; expert < layer.routing.num_experts; ++expert) {
      count.Add(partial.Expert(layer.layer, expert), whole.Expert(layer.layer, expert), file,
                &DigestOf);
    }
    count.Add(partial.Shared(layer.layer), whole.Shared(layer.layer), file, &DigestOf);
    count.Add(partial.Gate(layer.layer), whole.Gate(layer.layer), file,
              [](const GateWeights& gate) { return DecodeMatrix(gate.weight); });
  }
  return count;
}

// Whichever file is away: what is in the others is there, the rest is an error that names the file,
// and the outline stays.
TEST(PartialCheckpoint, HasWhatIsInTheFilesThatAreThere) {
  for (const Family* family : Families()) {
    TemporaryFolder folder;
    SyntheticOptions options = Small(std::string(family->name));
    options.max_shard_bytes = 6000;
    const auto whole = Make(folder / "m", options);
    ASSERT_NE(whole, nullptr);
    Count all;
    for (const std::string& file : WeightFiles(folder / "m")) {
      std::filesystem::rename(file, folder / "away");
      const auto partial = MoeCheckpoint::Open(folder / "m");
      std::filesystem::rename(folder / "away", file);
      ASSERT_TRUE(partial.ok()) << family->name << ": " << partial.status();
      const Count count = Compare(**partial, *whole, file);
      EXPECT_GT(count.same, 0);
      all.missing += count.missing;
      EXPECT_EQ((*partial)->outline(), whole->outline());
      EXPECT_EQ((*partial)->fingerprint(), "partial:" + whole->outline());
      EXPECT_TRUE(SameModel((*partial)->model_identity(), whole->model_identity()));
      EXPECT_FALSE((*partial)->warnings().empty());
    }
    EXPECT_GT(all.missing, 0) << family->name;
    EXPECT_EQ((*MoeCheckpoint::Open(folder / "m"))->fingerprint(), whole->fingerprint());
  }
}

TEST(PartialCheckpoint, OneFileIsEnoughForWhatIsInIt) {
  TemporaryFolder folder;
  SyntheticOptions options = Small("qwen3_moe");
  options.max_shard_bytes = 6000;
  const auto whole = Make(folder / "m", options);
  const std::string name = "model.layers.1.mlp.experts.2.";
  const nlohmann::json index =
      nlohmann::json::parse(ReadFile(folder / "m/model.safetensors.index.json"));
  for (const std::string& file : WeightFiles(folder / "m")) {
    bool needed = false;
    for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
      needed =
          needed || file.ends_with(index["weight_map"][name + part + ".weight"].get<std::string>());
    }
    if (!needed) {
      std::filesystem::remove(file);
    }
  }
  EXPECT_LE(WeightFiles(folder / "m").size(), 2u);
  const auto partial = MoeCheckpoint::Open(folder / "m");
  ASSERT_TRUE(partial.ok()) << partial.status();
  EXPECT_EQ(DigestOf(*(*partial)->Expert(1, 2)), DigestOf(*whole->Expert(1, 2)));
  EXPECT_FALSE((*partial)->Expert(0, 0).ok());
  EXPECT_EQ((*partial)->ExpertBytes(0, 0), 0u);
}

TEST(PartialCheckpoint, WhatIsThereMustBeRight) {
  TemporaryFolder folder;
  SyntheticOptions options = Small("qwen3_moe");
  options.max_shard_bytes = 6000;
  ASSERT_NE(Make(folder / "m", options), nullptr);
  std::filesystem::remove(WeightFiles(folder / "m").front());
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "m/config.json"));
  config["moe_intermediate_size"] = 8;
  WriteFile(folder / "m/config.json", config.dump());
  ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kInvalidArgument,
              "by config.json");
}

TEST(PartialCheckpoint, OutlinesTellModelsApart) {
  TemporaryFolder folder;
  const SyntheticOptions options = Small("qwen3_moe");
  const std::string outline = Make(folder / "first", options)->outline();
  EXPECT_EQ(outline.size(), 64u);
  SyntheticOptions other = options;
  other.max_shard_bytes = 6000;
  EXPECT_EQ(Make(folder / "sharded", other)->outline(), outline);
  other = options;
  other.top_k = 3;
  EXPECT_NE(Make(folder / "top_k", other)->outline(), outline);
  other = options;
  other.num_layers = 3;
  EXPECT_NE(Make(folder / "layers", other)->outline(), outline);
}

// What older programs say of the same checkpoint.
TEST(PartialCheckpoint, FingerprintsOfWholeCheckpointsStayAsTheyWere) {
  TemporaryFolder folder;
  EXPECT_EQ(Make(folder / "m", Small("qwen3_moe"))->fingerprint(),
            "406e075a5f93f56e2f792228a5aa1fe1fa8650c0bc23dd55cecd54abad28e32f");
  SyntheticOptions options = Small("deepseek_v3");
  options.max_shard_bytes = 6000;
  EXPECT_EQ(Make(folder / "d", options)->fingerprint(),
            "82efc8a0d16ae2bc1b480b19f3a42f3e0f4c90950a36499690e808dfc20b2254");
}

}  // namespace
}  // namespace expertmesh::checkpoint
