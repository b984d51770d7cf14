#include "common/expert_cache/use_frequency.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace expertmesh::expert_cache {
namespace {

TEST(UseFrequencyTest, NothingIsKnownBeforeTheFirstBatch) {
  UseFrequency frequency(2);
  EXPECT_EQ(frequency.batches(), 0);
  EXPECT_EQ(frequency.Share(0), 0);
  frequency.Use({});
  EXPECT_EQ(frequency.batches(), 1);
}

TEST(UseFrequencyTest, ABatchCountsHalfAsMuchAsOneAHalfLifeLater) {
  UseFrequency frequency(2);
  frequency.Use({0});
  for (int i = 1; i < static_cast<int>(UseFrequency::kHalfLife); ++i) {
    frequency.Use({});
  }
  frequency.Use({1});
  EXPECT_NEAR(frequency.Share(1) / frequency.Share(0), 2, 1e-9);
}

// The definition, over far more batches than the weights of batches have room for.
TEST(UseFrequencyTest, SharesAreThoseOfTheDefinitionForever) {
  constexpr int kBatches = 400000;
  std::mt19937 random(7);
  UseFrequency frequency(3);
  std::vector<double> uses(3);
  double batches = 0;
  const double decay = std::exp2(-1 / UseFrequency::kHalfLife);
  for (int batch = 0; batch < kBatches; ++batch) {
    std::vector<uint32_t> used;
    for (uint32_t expert = 0; expert < 3; ++expert) {
      uses[expert] *= decay;
      if (random() % (expert + 2) == 0) {
        used.push_back(expert);
        uses[expert] += 1;
      }
    }
    batches = batches * decay + 1;
    frequency.Use(used);
    if (batch % 1000 == 0) {
      for (uint32_t expert = 0; expert < 3; ++expert) {
        ASSERT_NEAR(frequency.Share(expert), uses[expert] / batches, 1e-9) << batch;
      }
      ASSERT_NEAR(frequency.batches(), batches, 1e-6) << batch;
    }
  }
}

}  // namespace
}  // namespace expertmesh::expert_cache
