#include "common/experts/worker_team.h"

#include <atomic>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "common/experts/packed_memory.h"
#include "gtest/gtest.h"

namespace expertmesh::experts {
namespace {

TEST(WorkerTeamTest, PhasesRunEveryTaskOnceAndInOrder) {
  for (const int threads : {1, 2, 5}) {
    WorkerTeam team(threads);
    TaskPhase first, second;
    for (const uint32_t tasks : {0u, 1u, 3u, 100u}) {
      std::vector<int> made(tasks, 0);
      std::vector<int> sums(tasks, -1);
      first.Reset(tasks);
      second.Reset(tasks);
      team.Run(
          [&](int) {
            first.RunTasks([&](uint32_t task) { made[task] += 1; });
            second.RunTasks([&](uint32_t task) {
              // Sees what all tasks of the first phase wrote.
              sums[task] = 0;
              for (const int value : made) {
                sums[task] += value;
              }
            });
          },
          /*alone=*/false);
      EXPECT_EQ(made, std::vector<int>(tasks, 1));
      EXPECT_EQ(sums, std::vector<int>(tasks, static_cast<int>(tasks)));
    }
  }
}

TEST(WorkerTeamTest, WorkersTakePart) {
  WorkerTeam team(3);
  // Returns only when three threads are in the job at once.
  absl::BlockingCounter inside(3);
  std::atomic<int> indices{0};
  team.Run(
      [&](int worker) {
        indices += 1 << worker;
        inside.DecrementCount();
        while (indices.load() != 7) {
        }
      },
      /*alone=*/false);
  inside.Wait();
  EXPECT_EQ(indices, 7);
}

TEST(WorkerTeamTest, AloneWakesNobody) {
  WorkerTeam team(4);
  int calls = 0;
  team.Run([&](int worker) { calls += worker == 0 ? 1 : 100; }, /*alone=*/true);
  EXPECT_EQ(calls, 1);
}

TEST(PackedMemoryTest, IsZeroAlignedAndCounted) {
  for (const bool huge : {false, true}) {
    for (const size_t size : {size_t{1}, size_t{4096}, (size_t{5} << 20) + 1}) {
      auto memory = PackedMemory::Allocate(size, huge);
      ASSERT_TRUE(memory.ok()) << memory.status();
      EXPECT_GE(memory->size(), size);
      EXPECT_LT(memory->size(), size + 65536);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) %
                    (huge && size > (size_t{2} << 20) ? size_t{2} << 20 : size_t{64}),
                0u);
      EXPECT_EQ(memory->data()[0], 0);
      EXPECT_EQ(memory->data()[size - 1], 0);
      memory->data()[0] = 1;
      memory->data()[size - 1] = 1;
      const PackedMemory moved = *std::move(memory);
      EXPECT_EQ(moved.data()[0], 1);
    }
  }
}

TEST(PackedMemoryTest, SaysWhenThereIsNone) {
  EXPECT_EQ(PackedMemory::Allocate(size_t{1} << 62, true).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(PackedMemory::Allocate(~size_t{0}, false).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace expertmesh::experts
