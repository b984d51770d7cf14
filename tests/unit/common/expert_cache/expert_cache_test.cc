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

constexpr uint32_t kExperts[] = {16, 8};
constexpr uint64_t kBytes[] = {10, 20};

class ExpertCacheTest : public ::testing::Test {
 protected:
  ExpertCacheTest() {
    worth_[0] = {1, 2, 3};
    worth_[1] = {4, 5};
  }

  static ExpertCache MakeCache(uint64_t capacity, std::unique_ptr<CachePolicy> policy) {
    return ExpertCache(kExperts, capacity, std::move(policy));
  }
  ExpertCache MakeCache(uint64_t capacity) {
    return MakeCache(capacity, std::make_unique<GivenPolicy>(&worth_));
  }

  // A batch uses these: what is missing is loaded, then what does not fit goes.
  void Use(ExpertCache& cache, size_t layer, const std::vector<uint32_t>& experts) {
    missed_.clear();
    for (const uint32_t expert : experts) {
      if (!cache.Has(layer, expert)) {
        missed_.push_back(expert);
        cache.Add(layer, expert, kBytes[layer]);
      }
    }
    cache.Use(layer, experts);
    cache.MakeRoom(0, layer, {}, &dropped_);
  }

  std::vector<std::vector<double>> worth_ = {std::vector<double>(16), std::vector<double>(8)};
  std::vector<uint32_t> missed_;
  std::vector<CachedExpert> dropped_;
};

TEST_F(ExpertCacheTest, WhatWasUsedIsThereWhileThereIsRoom) {
  ExpertCache cache = MakeCache(70);
  Use(cache, 0, {0, 1, 2});
  EXPECT_THAT(missed_, ElementsAre(0, 1, 2));
  Use(cache, 1, {0, 1});
  EXPECT_THAT(missed_, ElementsAre(0, 1));
  EXPECT_THAT(dropped_, IsEmpty());
  EXPECT_EQ(cache.bytes(), 70);
  Use(cache, 0, {1, 2});
  EXPECT_THAT(missed_, IsEmpty());
}

TEST_F(ExpertCacheTest, WhatIsWorthLeastGoesFirst) {
  ExpertCache cache = MakeCache(40);
  Use(cache, 0, {0, 1, 2});
  Use(cache, 1, {0});
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{0, 0}));
  EXPECT_EQ(cache.bytes(), 40);
  worth_[0] = {9, 8, 7};
  Use(cache, 0, {0});
  EXPECT_THAT(missed_, ElementsAre(0));
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{1, 0}));
  EXPECT_TRUE(cache.Has(0, 0) && cache.Has(0, 1) && cache.Has(0, 2));
}

TEST_F(ExpertCacheTest, WhatWasJustLoadedMayGoAtOnce) {
  ExpertCache cache = MakeCache(20);
  Use(cache, 1, {1});
  Use(cache, 0, {0});
  EXPECT_THAT(missed_, ElementsAre(0));
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{0, 0}));
  EXPECT_TRUE(cache.Has(1, 1));
}

TEST_F(ExpertCacheTest, WithoutRoomNothingIsKept) {
  ExpertCache cache = MakeCache(5);
  Use(cache, 0, {0, 2});
  EXPECT_THAT(missed_, ElementsAre(0, 2));
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{0, 0}, CachedExpert{0, 2}));
  EXPECT_EQ(cache.bytes(), 0);
}

TEST_F(ExpertCacheTest, RoomIsMadeBeforehandAndNotByWhatIsUsedNow) {
  ExpertCache cache = MakeCache(50);
  Use(cache, 0, {0, 1, 2});
  Use(cache, 1, {0});
  // Two of layer 0, which are worth least, are in use.
  cache.MakeRoom(20, 0, {0, 1}, &dropped_);
  EXPECT_THAT(dropped_, ElementsAre(CachedExpert{0, 2}, CachedExpert{1, 0}));
  EXPECT_TRUE(cache.HasRoom(30));
  EXPECT_FALSE(cache.HasRoom(31));
  // There is not that much.
  cache.MakeRoom(31, 0, {0, 1}, &dropped_);
  EXPECT_THAT(dropped_, IsEmpty());
}

TEST_F(ExpertCacheTest, WhatIsRemovedMakesRoom) {
  ExpertCache cache = MakeCache(30);
  Use(cache, 0, {0, 1, 2});
  cache.Remove(0, 1);
  cache.Remove(0, 1);
  EXPECT_FALSE(cache.Has(0, 1));
  EXPECT_EQ(cache.bytes(), 20);
  Use(cache, 0, {1});
  EXPECT_THAT(missed_, ElementsAre(1));
  EXPECT_THAT(dropped_, IsEmpty());
}

// Batches of one expert, in a cache with places for `room` of them: the textbook's list.
TEST_F(ExpertCacheTest, LruIsTheTextbooks) {
  constexpr size_t kRoom = 7;
  std::mt19937 random(3);
  ExpertCache cache = MakeCache(kRoom * kBytes[0], *MakeCachePolicy("lru", kExperts));
  std::list<uint32_t> recent;
  for (int batch = 0; batch < 5000; ++batch) {
    const uint32_t expert = std::min(random() % kExperts[0], random() % kExperts[0]);
    const auto found = std::find(recent.begin(), recent.end(), expert);
    const bool hit = found != recent.end();
    if (hit) {
      recent.erase(found);
    }
    recent.push_front(expert);
    if (recent.size() > kRoom) {
      recent.pop_back();
    }
    Use(cache, 0, {expert});
    ASSERT_EQ(missed_.empty(), hit) << batch;
  }
}

TEST_F(ExpertCacheTest, BooksAreRightWhateverIsUsed) {
  for (const std::string& name : CachePolicyNames()) {
    std::mt19937 random(5);
    ExpertCache cache = MakeCache(170, *MakeCachePolicy(name, kExperts));
    std::vector<std::vector<bool>> held = {std::vector<bool>(16), std::vector<bool>(8)};
    for (int batch = 0; batch < 2000; ++batch) {
      const size_t layer = random() % 2;
      std::vector<uint32_t> used;
      for (uint32_t expert = 0; expert < kExperts[layer]; ++expert) {
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
      Use(cache, layer, used);
      ASSERT_EQ(missed_, absent) << name;
      for (const CachedExpert& expert : dropped_) {
        ASSERT_TRUE(held[expert.layer][expert.expert]) << name;
        held[expert.layer][expert.expert] = false;
      }
      const auto bytes =
          static_cast<uint64_t>(std::count(held[0].begin(), held[0].end(), true) * 10 +
                                std::count(held[1].begin(), held[1].end(), true) * 20);
      ASSERT_EQ(cache.bytes(), bytes) << name;
      ASSERT_LE(bytes, 170) << name;
    }
  }
}

}  // namespace
}  // namespace expertmesh::expert_cache
