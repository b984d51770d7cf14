#include "common/base/thread_priority.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>

namespace expertmesh {
namespace {

int NiceOfThisThread() { return getpriority(PRIO_PROCESS, static_cast<id_t>(gettid())); }

TEST(ThreadPriorityTest, IsThatOfTheThreadAlone) {
  const int before = NiceOfThisThread();
  int gentle = 0;
  int neighbour = 0;
  std::thread([&gentle] {
    LetOtherThreadsGoFirst();
    gentle = NiceOfThisThread();
  }).join();
  std::thread([&neighbour] { neighbour = NiceOfThisThread(); }).join();
  int less = 0;
  std::thread([&less] {
    LetOtherThreadsHaveMost();
    less = NiceOfThisThread();
  }).join();
  EXPECT_EQ(gentle, 19);
  EXPECT_EQ(less, 10);
  EXPECT_EQ(neighbour, before);
  EXPECT_EQ(NiceOfThisThread(), before);
}

}  // namespace
}  // namespace expertmesh
