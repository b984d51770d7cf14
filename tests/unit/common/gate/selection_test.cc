#include "common/gate/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "tests/support/compare_rows.h"

namespace expertmesh::gate {
namespace {

using ::testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<uint32_t> TopK(const std::vector<float>& values, size_t k,
                           TieOrder ties = TieOrder::kLowestIndex, bool sorted = true) {
  SelectionScratch scratch;
  std::vector<uint32_t> ids(k);
  SelectTopK(values, ties, sorted, &scratch, absl::MakeSpan(ids));
  return ids;
}

// What the header promises, spelled out.
std::vector<uint32_t> SlowTopK(const std::vector<float>& values, size_t k) {
  std::vector<uint32_t> ids(values.size());
  std::iota(ids.begin(), ids.end(), 0u);
  std::stable_sort(ids.begin(), ids.end(), [&](uint32_t a, uint32_t b) {
    return (std::isnan(values[a]) && !std::isnan(values[b])) || values[a] > values[b];
  });
  ids.resize(k);
  return ids;
}

TEST(SelectTopK, BestFirst) { EXPECT_THAT(TopK({1, 4, 2, 3}, 3), ElementsAre(1, 3, 2)); }

TEST(SelectTopK, EqualValuesGoToTheLowerIndex) {
  EXPECT_THAT(TopK({1, 2, 2, 2, 0}, 2), ElementsAre(1, 2));
  EXPECT_THAT(TopK({0.0f, -0.0f, 0.0f}, 2), ElementsAre(0, 1));
  EXPECT_THAT(TopK({-0.0f, 0.0f, -0.0f}, 3), ElementsAre(0, 1, 2));
}

TEST(SelectTopK, NanIsLargestAndMinusInfinityIsStillAChoice) {
  EXPECT_THAT(TopK({1, kNan, kInfinity, -kNan}, 3), ElementsAre(1, 3, 2));
  EXPECT_THAT(TopK({-kInfinity, 5, -kInfinity}, 3), ElementsAre(1, 0, 2));
  EXPECT_THAT(TopK(std::vector<float>(200, kNan), 4), ElementsAre(0, 1, 2, 3));
}

TEST(SelectTopK, OneOfOneAndAllOfAll) {
  EXPECT_THAT(TopK({7}, 1), ElementsAre(0));
  EXPECT_THAT(TopK({1, 3, 2}, 3), ElementsAre(1, 2, 0));
}

TEST(SelectTopK, AgreesWithASortWhateverTheShapeAndTheTies) {
  std::mt19937 random(1);
  for (const uint32_t levels : {1u, 3u, 40u, 1u << 24}) {
    for (const size_t count : {2, 8, 31, 64, 128, 256, 1000}) {
      for (const size_t k : {1, 2, 8, 16, 17, 64}) {
        if (k > count) {
          continue;
        }
        std::vector<float> values(count);
        for (float& value : values) {
          value = static_cast<float>(random() % levels) - static_cast<float>(levels / 2);
        }
        values[random() % count] = kNan;
        values[random() % count] = kInfinity;
        values[random() % count] = -kInfinity;
        EXPECT_TRUE(SameRows(TopK(values, k), SlowTopK(values, k), k)) << count << " " << levels;
      }
    }
  }
}

TEST(SelectTopK, ScratchMayBeReusedForOtherShapes) {
  SelectionScratch scratch;
  for (const size_t count : {300, 5, 40}) {
    std::vector<float> values(count, 1.0f);
    values[count - 1] = 2.0f;
    for (const TieOrder ties : {TieOrder::kLowestIndex, TieOrder::kTorchCpu}) {
      std::vector<uint32_t> ids(1);
      SelectTopK(values, ties, true, &scratch, absl::MakeSpan(ids));
      EXPECT_EQ(ids[0], count - 1);
    }
  }
}

TEST(SelectTopK, TorchOrderIsTheRecordedOne) {
  const std::string path = EXPERTMESH_SOURCE_DIR "/tests/golden/routing/torch_topk.json";
  std::ifstream file(path);
  ASSERT_TRUE(file) << path;
  const nlohmann::json records = nlohmann::json::parse(file);
  ASSERT_GT(records.size(), 100u);
  int unlike_lowest_index = 0;
  int number = 0;
  for (const nlohmann::json& record : records) {
    std::vector<float> values;
    for (const nlohmann::json& value : record.at("values")) {
      values.push_back(value.is_null() ? kNan : value.get<float>());
    }
    const auto wanted = record.at("ids").get<std::vector<uint32_t>>();
    const auto ids =
        TopK(values, wanted.size(), TieOrder::kTorchCpu, record.at("sorted").get<bool>());
    EXPECT_TRUE(SameRows(ids, wanted, wanted.size())) << "record " << number;
    ++number;
    unlike_lowest_index += ids != TopK(values, wanted.size());
  }
  EXPECT_GT(unlike_lowest_index, 20) << "the records must tell the two orders apart";
}

TEST(SelectTopK, TorchOrderIsDistinctWhateverTheValues) {
  for (const float value : {kNan, kInfinity, -kInfinity, 0.0f}) {
    const auto ids = TopK(std::vector<float>(130, value), 8, TieOrder::kTorchCpu, false);
    EXPECT_EQ(std::set<uint32_t>(ids.begin(), ids.end()).size(), 8u);
    EXPECT_LT(*std::max_element(ids.begin(), ids.end()), 130u);
  }
}

TEST(IsTopK, AgreesWithTheSelectionWhateverTheShapeAndTheTies) {
  std::mt19937 random(2);
  SelectionScratch scratch;
  int equal = 0;
  int different = 0;
  for (const TieOrder ties : {TieOrder::kLowestIndex, TieOrder::kTorchCpu}) {
    for (const uint32_t levels : {1u, 2u, 5u, 1u << 24}) {
      for (int round = 0; round < 200; ++round) {
        const size_t count = 2 + random() % 70;
        const size_t k = 1 + random() % count;
        std::vector<float> values(count);
        for (float& value : values) {
          value = random() % 20 == 0 ? kNan : static_cast<float>(random() % levels);
        }
        std::vector<uint32_t> ids = TopK(values, k, ties);
        const std::set<uint32_t> wanted(ids.begin(), ids.end());
        // Some other one in place of one of them, or the same set.
        ids[random() % k] = static_cast<uint32_t>(random() % count);
        std::set<uint32_t> distinct(ids.begin(), ids.end());
        if (distinct.size() < k) {
          ids.assign(wanted.begin(), wanted.end());
          distinct = wanted;
        }
        std::shuffle(ids.begin(), ids.end(), random);
        ASSERT_EQ(IsTopK(values, ties, &scratch, ids), distinct == wanted)
            << count << " " << k << " " << levels;
        (distinct == wanted ? equal : different) += 1;
      }
    }
  }
  EXPECT_GT(equal, 100);
  EXPECT_GT(different, 100);
}

TEST(SelectTopKDeathTest, RefusesAnImpossibleK) {
  EXPECT_DEATH(TopK({1, 2}, 3), "ids.size");
  EXPECT_DEATH(TopK({1, 2}, 0), "ids.empty");
}

}  // namespace
}  // namespace expertmesh::gate
