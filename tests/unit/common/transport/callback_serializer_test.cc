#include "common/transport/callback_serializer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"

namespace expertmesh {
namespace {

TEST(CallbackSerializerTest, CallbacksOfManyThreadsDoNotOverlap) {
  CallbackSerializer serializer;
  int unguarded = 0;  // A race detector would see two at once.
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        serializer.Run([&] { ++unguarded; });
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  serializer.Close();
  EXPECT_EQ(unguarded, 4000);
}

TEST(CallbackSerializerTest, NestedCallbackRunsNext) {
  CallbackSerializer serializer;
  std::vector<int> order;
  serializer.Run([&] {
    serializer.Run([&] { order.push_back(2); });
    order.push_back(1);
  });
  EXPECT_THAT(order, testing::ElementsAre(1, 2));
}

TEST(CallbackSerializerTest, CloseWaitsForTheRunningCallback) {
  CallbackSerializer serializer;
  absl::Notification started;
  bool finished = false;
  std::thread runner([&] {
    serializer.Run([&] {
      started.Notify();
      finished = true;
    });
  });
  started.WaitForNotification();
  serializer.Close();
  EXPECT_TRUE(finished);
  bool ran = false;
  serializer.Run([&] { ran = true; });
  EXPECT_FALSE(ran);
  runner.join();
}

}  // namespace
}  // namespace expertmesh
