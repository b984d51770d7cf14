#include "common/base/shared_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace expertmesh {
namespace {

struct Thing {
  static inline std::atomic<int> alive{0};
  Thing() { ++alive; }
  ~Thing() { --alive; }
  void Recycle() { held.reset(); }
  size_t MemoryBytes() const { return bytes; }

  std::shared_ptr<int> held;
  size_t bytes = 0;
};

TEST(SharedPoolTest, GivesWhatCameBackLastAndHasDroppedWhatItHeld) {
  SharedPool<Thing> pool;
  const auto held = std::make_shared<int>(0);
  std::shared_ptr<Thing> a = pool.Take();
  std::shared_ptr<Thing> b = pool.Take();
  EXPECT_NE(a, b);
  a->held = held;
  Thing* const first = a.get();
  Thing* const second = b.get();
  b.reset();
  a.reset();
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(pool.objects(), 2u);
  const std::shared_ptr<Thing> c = pool.Take();
  const std::shared_ptr<Thing> d = pool.Take();
  EXPECT_EQ(c.get(), first);
  EXPECT_EQ(d.get(), second);
  EXPECT_EQ(pool.objects(), 0u);
}

TEST(SharedPoolTest, ShedsWhatWaitsAndGoesOn) {
  SharedPool<Thing> pool;
  const std::shared_ptr<Thing> out = pool.Take();
  pool.Take()->bytes = 7;
  EXPECT_EQ(pool.bytes(), 7u);
  EXPECT_EQ(Thing::alive, 2);
  pool.Shed();
  EXPECT_EQ(pool.bytes(), 0u);
  EXPECT_EQ(Thing::alive, 1);
  Thing* const kept = pool.Take().get();
  EXPECT_EQ(pool.objects(), 1u);
  EXPECT_EQ(pool.Take().get(), kept);
}

TEST(SharedPoolTest, AnObjectWaitsForItsWeakReferences) {
  SharedPool<Thing> pool;
  std::shared_ptr<Thing> thing = pool.Take();
  std::weak_ptr<Thing> weak = thing;
  thing.reset();
  EXPECT_EQ(weak.lock(), nullptr);
  EXPECT_EQ(pool.objects(), 0u);
  weak.reset();
  EXPECT_EQ(pool.objects(), 1u);
}

TEST(SharedPoolTest, KeepsAsManyAndAsMuchAsItMayTheLatest) {
  SharedPool<Thing> pool(PoolLimits{.objects = 3, .bytes = 100});
  const auto put = [&pool](const std::vector<size_t>& sizes) {
    std::vector<std::shared_ptr<Thing>> things;
    for (const size_t bytes : sizes) {
      things.push_back(pool.TakeWhich([](const Thing&) { return false; }));
      things.back()->bytes = bytes;
    }
    for (std::shared_ptr<Thing>& thing : things) {
      thing.reset();
    }
  };
  put({1, 2, 3, 4});
  EXPECT_EQ(pool.objects(), 3u);
  EXPECT_EQ(pool.bytes(), 2u + 3u + 4u);
  put({94});
  EXPECT_EQ(pool.bytes(), 94u + 4u);  // 2 made room by number, 3 by bytes.
  put({101});                         // More than there may ever be: nothing goes for it.
  EXPECT_EQ(pool.bytes(), 94u + 4u);
  const auto found = pool.TakeWhich([](const Thing& thing) { return thing.bytes == 4; });
  EXPECT_EQ(found->bytes, 4u);
  EXPECT_EQ(pool.bytes(), 94u);
}

TEST(SharedPoolTest, NothingIsLeftOfAPoolAndItsObjects) {
  ASSERT_EQ(Thing::alive, 0);
  std::shared_ptr<Thing> outlives;
  {
    SharedPool<Thing> pool;
    outlives = pool.Take();
    pool.Take();
    EXPECT_EQ(Thing::alive, 1 + 1);
  }
  EXPECT_EQ(Thing::alive, 1);
  outlives.reset();
  EXPECT_EQ(Thing::alive, 0);
}

TEST(SharedPoolTest, ThreadsTakeAndGiveBackAtOnce) {
  SharedPool<Thing> pool(PoolLimits{.objects = 2, .bytes = 1000});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool] {
      for (size_t i = 0; i < 2000; ++i) {
        const std::shared_ptr<Thing> a = pool.Take();
        const std::shared_ptr<Thing> b = pool.Take();
        a->bytes = i;
        b->held = std::make_shared<int>(1);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_LE(pool.objects(), 2u);
  EXPECT_LE(pool.bytes(), 1000u);
}

}  // namespace
}  // namespace expertmesh
