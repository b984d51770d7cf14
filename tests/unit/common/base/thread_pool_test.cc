#include "common/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/barrier.h"

namespace expertmesh {
namespace {

TEST(ThreadPoolTest, DestructionRunsEverythingQueuedAlsoByTasks) {
  std::atomic<int> ran{0};
  {
    ThreadPool pool(3);
    for (int i = 0; i < 100; ++i) {
      pool.Run([&] {
        ++ran;
        pool.Run([&] { ++ran; });
      });
    }
  }
  EXPECT_EQ(ran, 200);
}

TEST(ThreadPoolTest, ThreadsRunAtTheSameTime) {
  // Deadlocks (and times out) with fewer than two threads.
  auto* barrier = new absl::Barrier(2);
  ThreadPool pool(2);
  for (int i = 0; i < 2; ++i) {
    pool.Run([barrier] {
      if (barrier->Block()) {
        delete barrier;
      }
    });
  }
}

TEST(ThreadPoolTest, ZeroThreadsMeansOne) {
  std::atomic<bool> ran{false};
  {
    ThreadPool pool(0);
    pool.Run([&] { ran = true; });
  }
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace expertmesh
