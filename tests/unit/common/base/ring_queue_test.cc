#include "common/base/ring_queue.h"

#include <gtest/gtest.h>

#include <memory>

namespace expertmesh {
namespace {

TEST(RingQueueTest, KeepsOrderWhileItGrowsAndTurns) {
  RingQueue<int> queue;
  int in = 0;
  int out = 0;
  for (int round = 1; round < 60; ++round) {
    for (int i = 0; i < round; ++i) {
      queue.push_back(in++);
    }
    for (size_t i = 0; i < queue.size(); ++i) {
      ASSERT_EQ(queue[i], out + static_cast<int>(i));
    }
    for (int i = 0; i < round * 2 / 3; ++i) {
      ASSERT_EQ(queue.front(), out);
      ASSERT_EQ(queue.Pop(), out++);
    }
  }
  EXPECT_EQ(queue.size(), static_cast<size_t>(in - out));
}

TEST(RingQueueTest, WhatIsTakenOutIsNotHeldAnyLonger) {
  RingQueue<std::shared_ptr<int>> queue;
  const auto value = std::make_shared<int>(1);
  for (size_t i = 0; i < 2 * RingQueue<int>::kMostKept; ++i) {
    queue.push_back(value);
  }
  for (long left = value.use_count() - 1; !queue.empty(); --left) {
    queue.Pop();
    ASSERT_EQ(value.use_count(), left);
  }
  queue.push_back(value);  // After it gave its memory back.
  EXPECT_EQ(queue.Pop(), value);
}

}  // namespace
}  // namespace expertmesh
