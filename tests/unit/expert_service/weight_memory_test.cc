#include "expert_service/weight_memory.h"

#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"

namespace expertmesh::node {
namespace {

class TenBytes final : public experts::PackedExpert {
 public:
  size_t bytes() const override { return 10; }
};

TEST(WeightMemoryTest, IsFreeWhenTheLastOwnerIsGone) {
  const std::shared_ptr<WeightMemory> memory = WeightMemory::Create(25);
  EXPECT_TRUE(memory->TryReserve(10));
  auto expert = memory->Count(std::make_shared<const TenBytes>(), 10);
  auto other = expert;
  EXPECT_TRUE(memory->TryReserve(15));
  EXPECT_FALSE(memory->TryReserve(1));
  expert.reset();
  EXPECT_EQ(memory->used_bytes(), 25);
  other.reset();
  EXPECT_EQ(memory->used_bytes(), 15);
  memory->Free(15);
  EXPECT_EQ(memory->used_bytes(), 0);
}

TEST(WeightMemoryTest, WaitsUntilThereIsRoom) {
  const std::shared_ptr<WeightMemory> memory = WeightMemory::Create(10);
  ASSERT_TRUE(memory->TryReserve(4));
  absl::Notification reserved;
  std::thread waits([&] {
    EXPECT_TRUE(memory->Reserve(8));
    reserved.Notify();
  });
  EXPECT_FALSE(reserved.HasBeenNotified());
  memory->Free(2);
  reserved.WaitForNotification();
  waits.join();
  EXPECT_EQ(memory->used_bytes(), 10);
}

TEST(WeightMemoryTest, StopEndsTheWait) {
  const std::shared_ptr<WeightMemory> memory = WeightMemory::Create(10);
  std::thread waits([&] { EXPECT_FALSE(memory->Reserve(11)); });
  memory->Stop();
  waits.join();
  EXPECT_FALSE(memory->Reserve(1));
}

}  // namespace
}  // namespace expertmesh::node
