#include "common/checkpoint/expert_digest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/digest_cache.h"
#include "common/model/expert_slice.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"
#include "tests/unit/common/checkpoint/made_checkpoint.h"

namespace expertmesh::checkpoint {
namespace {

using testing::HasSubstr;

// [rows, cols] of float32, side by side or column by column.
MatrixView View(const std::vector<float>& values, size_t rows, size_t cols, bool transposed) {
  MatrixView view = MatrixView::RowMajor(values.data(), Dtype::kF32, rows, cols);
  if (transposed) {
    view.row_stride = 1;
    view.col_stride = rows;
  }
  return view;
}

TEST(ExpertDigestTest, IsOfTheMatrixAndNotOfWhatLiesAroundIt) {
  constexpr size_t kRows = 200;
  constexpr size_t kCols = 310;
  constexpr size_t kGap = 7;
  std::vector<float> by_rows(kRows * kCols);
  std::vector<float> by_columns(kRows * kCols);
  std::vector<float> rows_with_gaps(kRows * (kCols + kGap), -1.0f);
  std::vector<float> columns_with_gaps(kCols * (kRows + kGap), -2.0f);
  std::vector<float> in_turns(kRows * kCols * 2, -3.0f);
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t c = 0; c < kCols; ++c) {
      const float value = static_cast<float>(r * 1000 + c);
      by_rows[r * kCols + c] = by_columns[c * kRows + r] = value;
      rows_with_gaps[r * (kCols + kGap) + c] = columns_with_gaps[c * (kRows + kGap) + r] = value;
      in_turns[2 * (r * kCols + c)] = value;
    }
  }
  ExpertWeights weights;
  weights.up = View(by_rows, kRows, kCols, false);
  const uint64_t digest = DigestOf(weights);
  weights.up = View(rows_with_gaps, kRows, kCols, false);
  weights.up.row_stride = kCols + kGap;
  EXPECT_EQ(DigestOf(weights), digest);
  weights.up = View(in_turns, kRows, kCols, false);
  weights.up.row_stride = 2 * kCols;
  weights.up.col_stride = 2;
  EXPECT_EQ(DigestOf(weights), digest);

  weights.up = View(by_columns, kRows, kCols, true);
  const uint64_t transposed = DigestOf(weights);
  weights.up = View(columns_with_gaps, kRows, kCols, true);
  weights.up.col_stride = kRows + kGap;
  EXPECT_EQ(DigestOf(weights), transposed);

  // Another shape of the same bytes, and the same matrix in another place.
  weights.up = View(by_rows, kCols, kRows, false);
  EXPECT_NE(DigestOf(weights), digest);
  weights.gate = View(by_rows, kRows, kCols, false);
  weights.up = {};
  EXPECT_NE(DigestOf(weights), digest);
}

// A value that stays the same from build to build: nodes and routers of different ones compare it.
TEST(ExpertDigestTest, IsTheSameInEveryBuild) {
  const std::vector<float> values = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
  ExpertWeights weights;
  weights.up = View(values, 2, 3, false);
  weights.down = View(values, 3, 2, false);
  EXPECT_EQ(absl::StrCat(absl::Hex(DigestOf(weights))), "d0faf3c64791f931");
}

class FamilyDigestTest : public testing::TestWithParam<SyntheticOptions> {};

TEST_P(FamilyDigestTest, EveryBitOfAnExpertCountsAndNoOthers) {
  const TemporaryFolder folder;
  const std::string& directory = folder.path();
  const auto before = Make(directory, GetParam());
  const auto all = [](const MoeCheckpoint& checkpoint) {
    std::vector<uint64_t> digests;
    for (const MoeLayerDescription& layer : checkpoint.model().layers) {
      for (uint32_t expert = 0; expert < layer.routing.num_experts; ++expert) {
        for (uint32_t slice = 0; slice < 2; ++slice) {
          digests.push_back(DigestOf(SliceOf(*checkpoint.Expert(layer.layer, expert), {slice, 2})));
        }
      }
    }
    return digests;
  };
  const std::vector<uint64_t> digests = all(*before);
  EXPECT_EQ(std::set<uint64_t>(digests.begin(), digests.end()).size(), digests.size());
  // Every tensor in turn: one bit of its last byte.
  for (const auto& [name, tensor] : Tensors(directory)) {
    const bool of_experts =
        name.find("expert") != std::string::npos && name.find("shared") == std::string::npos;
    const auto flip = [&, name = name](OwnedTensors* tensors) {
      tensors->at(name).bytes.back() ^= 1;
    };
    Rewrite(directory, flip);
    const auto changed = MoeCheckpoint::Open(directory);
    ASSERT_TRUE(changed.ok()) << changed.status();
    const std::vector<uint64_t> after = all(**changed);
    size_t differ = 0;
    for (size_t i = 0; i < digests.size(); ++i) {
      differ += after[i] != digests[i] ? 1 : 0;
    }
    // The bias of `down` belongs to slice 0 alone; a scale may belong to both slices.
    EXPECT_TRUE(of_experts ? differ == 1 || differ == 2 : differ == 0) << name << " " << differ;
    Rewrite(directory, flip);
  }
}

SyntheticOptions Quantised(const std::string& family, Quantisation how) {
  SyntheticOptions options = Small(family);
  options.d_model = 256;
  options.intermediate_size = 256;
  options.quantise = how;
  return options;
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyDigestTest,
                         testing::Values(Small("qwen3_moe"), Small("gpt_oss"),
                                         Quantised("deepseek_v3", Quantisation::kFp8),
                                         Quantised("gpt_oss", Quantisation::kMxfp4)));

const ExpertSliceId kOne = {3, 5, {0, 1}};
const ExpertSliceId kOther = {3, 5, {1, 2}};

TEST(DigestCacheTest, KeepsWhatWasAddedForThisVersionOfTheFiles) {
  const TemporaryFolder folder;
  DigestCache cache(folder.path(), "model.safetensors 1 2 3\n");
  ASSERT_TRUE(cache.Load().ok());
  EXPECT_EQ(cache.Find(kOne), std::nullopt);
  cache.Add(kOne, 0xfedcba9876543210u);
  cache.Add(kOther, 7);
  ASSERT_TRUE(cache.Save().ok());

  DigestCache again(folder.path(), "model.safetensors 1 2 3\n");
  ASSERT_TRUE(again.Load().ok());
  EXPECT_EQ(again.Find(kOne), 0xfedcba9876543210u);
  EXPECT_EQ(again.Find(kOther), 7u);
  EXPECT_EQ(again.size(), 2u);

  DigestCache newer(folder.path(), "model.safetensors 1 2 4\n");
  ASSERT_TRUE(newer.Load().ok());
  EXPECT_EQ(newer.size(), 0u);
  // Nothing but the cache is left behind.
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    EXPECT_EQ(entry.path().filename(), ".expertmesh-digests.json");
    ++files;
  }
  EXPECT_EQ(files, 1u);
}

TEST(DigestCacheTest, ADamagedOneIsSaidSoAndReplaced) {
  const TemporaryFolder folder;
  const std::string path = folder / ".expertmesh-digests.json";
  DigestCache cache(folder.path(), "x");
  cache.Add(kOne, 1);
  ASSERT_TRUE(cache.Save().ok());
  const std::string whole = ReadFile(path);
  std::vector<std::string> damaged = {
      "",
      "{}",
      "[]",
      R"({"format": 1, "checkpoint": "x", "digests": []})",
      R"({"format": 1, "checkpoint": "x", "digests": {"3/5": "1"}})",
      R"({"format": 1, "checkpoint": "x", "digests": {"3/5/0of1": 1}})",
      R"({"format": 1, "checkpoint": "x", "digests": {"3/5/0of1": "xyz"}})"};
  for (size_t size = 1; size < whole.size(); ++size) {
    damaged.push_back(whole.substr(0, size));
  }
  for (const std::string& text : damaged) {
    WriteFile(path, text);
    const absl::Status loaded = cache.Load();
    EXPECT_EQ(loaded.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(loaded.message()), HasSubstr(path));
    EXPECT_EQ(cache.size(), 0u);
  }
  cache.Add(kOne, 1);
  ASSERT_TRUE(cache.Save().ok());
  EXPECT_TRUE(cache.Load().ok());
  EXPECT_EQ(cache.size(), 1u);
}

TEST(DigestCacheTest, AFolderThatCannotBeWrittenToIsNoCache) {
  DigestCache cache("/proc/nowhere", "x");
  EXPECT_TRUE(cache.Load().ok());
  cache.Add(kOne, 1);
  EXPECT_EQ(cache.Save().code(), absl::StatusCode::kUnavailable);
  DigestCache none("", "x");
  none.Add(kOne, 1);
  EXPECT_TRUE(none.Save().ok());
}

TEST(DigestCacheTest, AnotherFileIsAnotherIdentity) {
  const TemporaryFolder folder;
  const std::string& directory = folder.path();
  const auto first = Make(directory, Small("qwen3_moe"));
  EXPECT_EQ(first->directory(), directory);
  EXPECT_THAT(first->identity(), HasSubstr("model.safetensors "));
  EXPECT_EQ((*MoeCheckpoint::Open(directory))->identity(), first->identity());
  Rewrite(directory, [](OwnedTensors* tensors) { tensors->begin()->second.bytes[0] ^= 1; });
  EXPECT_NE((*MoeCheckpoint::Open(directory))->identity(), first->identity());
}

}  // namespace
}  // namespace expertmesh::checkpoint
