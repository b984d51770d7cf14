#include "common/gate/row_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::gate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> Padded(std::vector<float> values) {
  values.resize(PaddedRow(values.size()), 12345.0f);
  return values;
}

class RowKernelsTest : public ::testing::TestWithParam<const RowKernels*> {
 protected:
  const RowKernels& kernels() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(AllVariants, RowKernelsTest, ::testing::ValuesIn(AllRowKernelsForTest()),
                         [](const auto& info) { return std::string(info.param->name); });

TEST_P(RowKernelsTest, SoftmaxAgreesWithDoublePrecision) {
  for (const size_t count : {1, 2, 8, 15, 16, 17, 60, 128, 256, 257}) {
    const std::vector<float> logits = NormalValues(count, 1, 5.0f);
    std::vector<float> row = Padded(logits);
    kernels().softmax(row.data(), count);
    const float largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float z : logits) {
      sum += std::exp(static_cast<double>(z - largest));
    }
    std::vector<double> exact;
    for (const float z : logits) {
      exact.push_back(std::exp(static_cast<double>(z - largest)) / sum);
    }
    row.resize(count);
    EXPECT_TRUE(RowsNear(row, exact, count, [&](size_t i) { return exact[i] * 4e-7; }));
  }
}

TEST_P(RowKernelsTest, SoftmaxOfHugeLogitsDoesNotOverflow) {
  std::vector<float> row = Padded({3e38f, 3e38f, -3e38f});
  kernels().softmax(row.data(), 3);
  EXPECT_FLOAT_EQ(row[0], 0.5f);
  EXPECT_FLOAT_EQ(row[1], 0.5f);
  EXPECT_EQ(row[2], 0.0f);
}

TEST_P(RowKernelsTest, SoftmaxOfInfinities) {
  std::vector<float> row = Padded({-kInfinity, 1.0f, 1.0f});
  kernels().softmax(row.data(), 3);
  EXPECT_THAT(std::vector<float>(row.begin(), row.begin() + 3),
              ::testing::ElementsAre(0.0f, 0.5f, 0.5f));
  for (const std::vector<float>& bad :
       {std::vector<float>{1.0f, kNan, 2.0f}, std::vector<float>{1.0f, kInfinity, 2.0f},
        std::vector<float>(3, -kInfinity)}) {
    row = Padded(bad);
    kernels().softmax(row.data(), 3);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(std::isnan(row[i])) << i;
    }
  }
}

TEST_P(RowKernelsTest, SigmoidAgreesWithDoublePrecision) {
  std::vector<float> inputs = NormalValues(250, 2, 20.0f);
  inputs.insert(inputs.end(), {0.0f, -0.0f, 87.0f, -87.0f, -88.5f, 104.0f});
  std::vector<float> row = Padded(inputs);
  kernels().sigmoid(row.data(), inputs.size());
  std::vector<double> exact;
  for (const float input : inputs) {
    exact.push_back(1.0 / (1.0 + std::exp(-static_cast<double>(input))));
  }
  row.resize(inputs.size());
  EXPECT_TRUE(RowsNear(row, exact, row.size(), [&](size_t i) { return exact[i] * 4e-7; }));
}

TEST_P(RowKernelsTest, SigmoidAtTheEnds) {
  std::vector<float> row = Padded({kInfinity, -kInfinity, kNan, 1e30f, -1e30f});
  kernels().sigmoid(row.data(), 5);
  EXPECT_EQ(row[0], 1.0f);
  EXPECT_EQ(row[1], 0.0f);
  EXPECT_TRUE(std::isnan(row[2]));
  EXPECT_EQ(row[3], 1.0f);
  EXPECT_EQ(row[4], 0.0f);
}

TEST_P(RowKernelsTest, OrderKeysFollowTheFloats) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  const std::vector<float> ascending = {-kInfinity, -3e38f, -1.5f, -1.0f, -tiny,     0.0f, tiny,
                                        1e-30f,     0.5f,   1.0f,  3e38f, kInfinity, kNan};
  std::vector<int32_t> keys(PaddedRow(ascending.size()));
  kernels().order_keys(ascending.data(), ascending.size(), keys.data());
  for (size_t i = 1; i < ascending.size(); ++i) {
    EXPECT_LT(keys[i - 1], keys[i]) << ascending[i];
  }
  for (size_t i = ascending.size(); i < keys.size(); ++i) {
    EXPECT_EQ(keys[i], std::numeric_limits<int32_t>::min());
  }
  EXPECT_LT(std::numeric_limits<int32_t>::min(), keys[0]);
}

TEST_P(RowKernelsTest, ZerosAreEqualAndSoAreNans) {
  const float other_nan = std::bit_cast<float>(0xffc00001u);
  for (const size_t at : {0, 17}) {  // In a whole block, and in the rest of the row.
    std::vector<float> row(20, 1.0f);
    row[at] = -0.0f;
    row[at + 1] = 0.0f;
    row[5] = other_nan;
    row[6] = kNan;
    std::vector<int32_t> keys(PaddedRow(row.size()));
    kernels().order_keys(row.data(), row.size(), keys.data());
    EXPECT_EQ(keys[at], keys[at + 1]);
    EXPECT_EQ(keys[5], keys[6]);
  }
}

TEST_P(RowKernelsTest, TopTwoSumsOfEverySize) {
  for (const size_t size : {2, 3, 8, 16, 20, 32, 33, 48}) {
    std::vector<float> row = NormalValues(size * 5, 3, 1.0f);
    row[size * 2] = kNan;
    std::fill_n(row.begin() + static_cast<ptrdiff_t>(size * 3), size, 0.75f);
    std::vector<float> sums(5);
    kernels().top_two_sums(row.data(), 5, size, sums.data());
    for (size_t group = 0; group < 5; ++group) {
      std::vector<float> run(row.begin() + static_cast<ptrdiff_t>(group * size),
                             row.begin() + static_cast<ptrdiff_t>((group + 1) * size));
      if (group == 2) {
        EXPECT_TRUE(std::isnan(sums[group]));
        continue;
      }
      std::sort(run.begin(), run.end(), std::greater<>());
      EXPECT_EQ(sums[group], run[0] + run[1]) << size << " " << group;
    }
  }
}

TEST_P(RowKernelsTest, CountBestCountsWhatIsLargerAndEqualsUpToTheIndex) {
  std::mt19937 random(5);
  for (const size_t count : {1, 2, 15, 16, 17, 60, 256, 257}) {
    for (const int levels : {1, 3, 1 << 20}) {
      std::vector<int32_t> keys(PaddedRow(count), std::numeric_limits<int32_t>::min());
      for (size_t i = 0; i < count; ++i) {
        keys[i] = static_cast<int32_t>(random() % static_cast<uint32_t>(levels)) - levels / 2;
      }
      const auto last = static_cast<uint32_t>(random() % count);
      size_t wanted = 0;
      for (size_t i = 0; i < count; ++i) {
        wanted += keys[i] > keys[last] || (keys[i] == keys[last] && i <= last) ? 1 : 0;
      }
      EXPECT_EQ(kernels().count_best(keys.data(), count, keys[last], last), wanted) << count;
    }
  }
}

TEST_P(RowKernelsTest, SelectPicksTheLargestLowestIndexFirst) {
  std::mt19937 random(4);
  for (const int levels : {1, 4, 50, 1 << 20}) {
    for (const size_t count : {1, 7, 16, 17, 60, 128, 256, 513}) {
      for (size_t k = 1; k <= std::min(count, kMaxFastK); ++k) {
        std::vector<int32_t> keys(PaddedRow(count), std::numeric_limits<int32_t>::min());
        for (size_t i = 0; i < count; ++i) {
          keys[i] = static_cast<int32_t>(random() % static_cast<uint32_t>(levels)) - levels / 2;
        }
        std::vector<uint32_t> wanted(count);
        std::iota(wanted.begin(), wanted.end(), 0u);
        std::stable_sort(wanted.begin(), wanted.end(),
                         [&](uint32_t a, uint32_t b) { return keys[a] > keys[b]; });
        wanted.resize(k);
        std::vector<uint32_t> ids(k, 77777);
        if (kernels().select(keys.data(), count, k, ids.data())) {
          EXPECT_EQ(ids, wanted) << count << " " << k << " " << levels;
        } else {
          EXPECT_LT(levels, 50) << "only ties may be declined";
          EXPECT_THAT(ids, ::testing::Each(77777u));
        }
      }
    }
  }
}

TEST_P(RowKernelsTest, SelectDeclinesALargeK) {
  std::vector<int32_t> keys(32);
  std::vector<uint32_t> ids(32);
  EXPECT_FALSE(kernels().select(keys.data(), 32, kMaxFastK + 1, ids.data()));
}

TEST(RowKernels, EveryVariantGivesTheSameBits) {
  const std::vector<const RowKernels*> all = AllRowKernelsForTest();
  const RowKernels& first = *all.front();
  for (const RowKernels* other : all) {
    for (const size_t count : {1, 8, 20, 128, 160, 256}) {
      for (uint32_t seed = 0; seed < 20; ++seed) {
        const std::vector<float> input = Padded(NormalValues(count, seed, 8.0f));
        std::vector<float> a = input;
        std::vector<float> b = input;
        first.softmax(a.data(), count);
        other->softmax(b.data(), count);
        a.resize(count);
        b.resize(count);
        ASSERT_TRUE(SameBits(b, a, count)) << other->name;
        a = input;
        b = input;
        first.sigmoid(a.data(), count);
        other->sigmoid(b.data(), count);
        a.resize(count);
        b.resize(count);
        ASSERT_TRUE(SameBits(b, a, count)) << other->name;
      }
    }
  }
}

}  // namespace
}  // namespace expertmesh::gate
