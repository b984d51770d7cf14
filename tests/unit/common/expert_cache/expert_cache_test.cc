#include "common/expert_cache/expert_cache.h"

#include <algorithm>
#include <list>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::expert_cache {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Worth is what the test says.
class GivenPolicy final : public CachePolicy {
 public:
  explicit GivenPolicy(std::vector<std::vector<double>>* worth) : worth_(worth) {}
  void Use(size_t, absl::Span<const uint32_t>) override {}
  double Worth(size_t layer, uint32_t expert) const override { return (*worth_)[layer][expert]; }

 private:
  std::vector<std::vector<double>>* const worth_;
};

class ExpertCacheTest : public ::testing::Test {
 protected:
  ExpertCache MakeCache(uint64_t capacity) {
    return ExpertCache({{3, 10}, {2, 20}}, capacity, std::make_unique<GivenPolicy>(&worth_));
  }

  std::vector<std::vector<double>> worth_ = {{1, 2, 3}, {4, 5}};
  std::vector<uint32_t> missed_;
  std::vector<CachedExpert> dropped_;
};

TEST_F(ExpertCacheTest, WhatWasUsedIsThereWhileThereIsRoom) {
  ExpertCache cache = MakeCache(70);
  cache.Use(0, {0, 1, 2}, &missed_, &dropped_);
  EXPECT_THAT(missed_, ElementsAre(0, 1, 2));
  cache.Use(1, {0, 1}, &missed_, &dropped_);
  EXPECT_THAT(missed_, ElementsAre(0, 1));
  EXPECT_THAT(dropped_, IsEmpty());
  EXPECT_EQ(cache.bytes(), 70);
  cache.Use(0, {1, 2}, &missed_, &dropped_);
  EXPECT_THAT(missed_, IsEmpty());
}

TEST_F(ExpertCacheTest, WhatIsWorthLeastGoesFirst) {
  ExpertCache cache = MakeCache(40);
  cache.Use(0, {0, 1, 2}, &missed_, &dropped_);
  cache.Use(1, {0}, &missed_, &dropped_);
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{0, 0}));
  EXPECT_EQ(cache.bytes(), 40);
  worth_[0] = {9, 8, 7};
  cache.Use(0, {0}, &missed_, &dropped_);
  EXPECT_THAT(missed_, ElementsAre(0));
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{1, 0}));
  EXPECT_TRUE(cache.Has(0, 0) && cache.Has(0, 1) && cache.Has(0, 2));
}

TEST_F(ExpertCacheTest, WhatWasJustLoadedMayGoAtOnce) {
  ExpertCache cache = MakeCache(20);
  cache.Use(1, {1}, &missed_, &dropped_);
  cache.Use(0, {0}, &missed_, &dropped_);
  EXPECT_THAT(missed_, ElementsAre(0));
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{0, 0}));
  EXPECT_TRUE(cache.Has(1, 1));
}

TEST_F(ExpertCacheTest, WithoutRoomNothingIsKept) {
  ExpertCache cache = MakeCache(5);
  cache.Use(0, {0, 2}, &missed_, &dropped_);
  EXPECT_THAT(missed_, ElementsAre(0, 2));
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{0, 0}, CachedExpert{0, 2}));
  EXPECT_EQ(cache.bytes(), 0);
}

// Batches of one expert, in a cache with places for `room` of them: the textbook's list.
TEST_F(ExpertCacheTest, LruIsTheTextbooks) {
  constexpr uint32_t kExperts = 20;
  constexpr size_t kRoom = 7;
  std::mt19937 random(3);
  const std::vector<uint32_t> experts = {kExperts};
  ExpertCache cache({{kExperts, 1}}, kRoom, *MakeCachePolicy("lru", experts));
  std::list<uint32_t> recent;
  for (int batch = 0; batch < 5000; ++batch) {
    const uint32_t expert = std::min(random() % kExperts, random() % kExperts);
    const auto found = std::find(recent.begin(), recent.end(), expert);
    const bool hit = found != recent.end();
    if (hit) {
      recent.erase(found);
    }
    recent.push_front(expert);
    if (recent.size() > kRoom) {
      recent.pop_back();
    }
    cache.Use(0, {expert}, &missed_, &dropped_);
    ASSERT_EQ(missed_.empty(), hit) << batch;
  }
}

TEST_F(ExpertCacheTest, BooksAreRightWhateverIsUsed) {
  for (const std::string& name : CachePolicyNames()) {
    std::mt19937 random(5);
    const std::vector<uint32_t> experts = {16, 8};
    ExpertCache cache({{16, 3}, {8, 5}}, 31, *MakeCachePolicy(name, experts));
    std::vector<std::vector<bool>> held = {std::vector<bool>(16), std::vector<bool>(8)};
    for (int batch = 0; batch < 2000; ++batch) {
      const size_t layer = random() % 2;
      std::vector<uint32_t> used;
      for (uint32_t expert = 0; expert < experts[layer]; ++expert) {
        if (random() % 4 == 0) {
          used.push_back(expert);
        }
      }
      std::vector<uint32_t> absent;
      for (const uint32_t expert : used) {
        if (!held[layer][expert]) {
          absent.push_back(expert);
        }
        held[layer][expert] = true;
      }
      cache.Use(layer, used, &missed_, &dropped_);
      ASSERT_EQ(missed_, absent) << name;
      for (const CachedExpert& expert : dropped_) {
        ASSERT_TRUE(held[expert.layer][expert.expert]) << name;
        held[expert.layer][expert.expert] = false;
      }
      const auto bytes =
          static_cast<uint64_t>(std::count(held[0].begin(), held[0].end(), true) * 3 +
                                std::count(held[1].begin(), held[1].end(), true) * 5);
      ASSERT_EQ(cache.bytes(), bytes) << name;
      ASSERT_LE(bytes, 31) << name;
    }
  }
}

}  // namespace
}  // namespace expertmesh::expert_cache
