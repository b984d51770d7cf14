#include "common/base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "absl/synchronization/barrier.h"
#include "absl/synchronization/notification.h"

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

TEST(ThreadPoolTest, ALoopCallsEachIndexOnceFromAnyThread) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&pool] {
      for (size_t count = 0; count < 200; ++count) {
        std::vector<int> called(count);
        pool.ParallelFor(count, [&called](size_t i, size_t) { ++called[i]; });
        ASSERT_EQ(called, std::vector<int>(count, 1));
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
}

TEST(ThreadPoolTest, CallsAtTheSameTimeHaveDifferentSlots) {
  ThreadPool pool(3);
  EXPECT_EQ(pool.slots(), 4u);
  std::vector<std::atomic<int>> users(pool.slots());
  std::atomic<bool> shared{false};
  for (int loop = 0; loop < 50; ++loop) {
    pool.ParallelFor(100, [&](size_t, size_t slot) {
      ASSERT_LT(slot, users.size());
      if (users[slot].fetch_add(1) != 0) {
        shared = true;
      }
      std::this_thread::yield();
      users[slot].fetch_sub(1);
    });
  }
  EXPECT_FALSE(shared);
}

TEST(ThreadPoolTest, IdleThreadsTakeAShareOfALoop) {
  ThreadPool pool(1);
  absl::Barrier* const both = new absl::Barrier(2);  // Hangs when one thread has both.
  pool.ParallelFor(2, [both](size_t, size_t) {
    if (both->Block()) {
      delete both;
    }
  });
}

TEST(ThreadPoolTest, ALoopReturnsAfterItsHelpers) {
  ThreadPool pool(1);
  const std::thread::id caller = std::this_thread::get_id();
  absl::Barrier* const both = new absl::Barrier(2);
  std::atomic<bool> helped{false};
  pool.ParallelFor(2, [&](size_t, size_t) {
    if (both->Block()) {
      delete both;
    }
    if (std::this_thread::get_id() != caller) {
      for (int i = 0; i < 10000; ++i) {  // The caller is ready long before.
        std::this_thread::yield();
      }
      helped = true;
    }
  });
  EXPECT_TRUE(helped);
}

TEST(ThreadPoolTest, ALoopWaitsForNoThreadThatIsBusy) {
  ThreadPool pool(1);
  absl::Notification busy;
  absl::Notification go_on;
  pool.Run([&] {
    busy.Notify();
    go_on.WaitForNotification();
  });
  busy.WaitForNotification();
  std::vector<int> called(10);
  pool.ParallelFor(called.size(), [&called](size_t i, size_t) { ++called[i]; });
  EXPECT_EQ(called, std::vector<int>(10, 1));
  go_on.Notify();
}

TEST(ThreadPoolTest, ATaskMayLoopOnItsOwnPool) {
  std::atomic<int> calls{0};
  {
    ThreadPool pool(2);
    for (int i = 0; i < 10; ++i) {
      pool.Run([&] { pool.ParallelFor(10, [&calls](size_t, size_t) { ++calls; }); });
    }
  }
  EXPECT_EQ(calls, 100);
}

TEST(ThreadPoolTest, ZeroThreadsMeansOne) {
  std::atomic<bool> ran{false};
  {
    ThreadPool pool(0);
    pool.Run([&] { ran = true; });
  }
  EXPECT_TRUE(ran);
}

TEST(ThreadPoolTest, OnEachThreadMeansEveryOneOfThemOnce) {
  ThreadPool pool(3);
  absl::Mutex mutex;
  std::vector<std::thread::id> seen;
  pool.OnEachThread(
      [&] {
        absl::MutexLock lock(&mutex);
        seen.push_back(std::this_thread::get_id());
      },
      absl::InfiniteDuration());
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(std::set<std::thread::id>(seen.begin(), seen.end()).size(), 3u);
  EXPECT_EQ(std::count(seen.begin(), seen.end(), std::this_thread::get_id()), 0);
}

}  // namespace
}  // namespace expertmesh
