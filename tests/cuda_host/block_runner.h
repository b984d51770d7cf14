// Inside of block.h: the threads of the block that runs, and where they meet.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_BLOCK_RUNNER_H_
#define EXPERTMESH_TESTS_CUDA_HOST_BLOCK_RUNNER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda_host/device.h"
#include "tests/cuda_host/block.h"
#include "tests/cuda_host/fiber.h"
#include "tests/cuda_host/random.h"
#include "tests/cuda_host/shared_memory.h"

namespace expertmesh::cuda_host {

inline constexpr uint32_t kLanes = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

enum class Meeting { kSyncThreads, kSyncWarp, kShuffle, kMma, kLoadMatrix };

struct AsyncCopy {
  void* to;
  const void* from;
  int group;
};

struct Thread {
  Fiber* fiber = nullptr;  // That it runs on, once it has begun.
  uint32_t index = 0;      // In its block.
  uint3 place = {};
  // While it waits:
  bool waits = false;
  Meeting meeting = Meeting::kSyncThreads;
  Site site = {};
  uint32_t mask = 0;
  // What it brings to a meeting, and what it takes from it.
  uint32_t value = 0;
  uint32_t source = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  void* result = nullptr;
  // Its asynchronous copies that have not taken place, and how many groups it has ended.
  std::vector<AsyncCopy> copies;
  int groups = 0;
};

class BlockRunner {
 public:
  static BlockRunner& Get();

  void Run(const KernelLaunch& launch, uint3 block, Random& random);

  Thread& self() { return *self_; }
  bool running() const { return self_ != nullptr; }
  const SharedMemory& shared() const { return shared_; }

  // Returns when all threads of the block have come.
  void MeetBlock(const Site& site);
  // Returns when the lanes of `mask` have come; the last of them calls `act` first.
  void MeetWarp(Meeting meeting, uint32_t mask, const Site& site,
                void (*act)(Thread* lanes, uint32_t mask));

  // The kernel, the block, and `thread`.
  std::string Name(const Thread& thread) const;
  [[noreturn]] void Fail(const std::string& what) const;

 private:
  // Lanes that wait for others of their warp.
  struct WarpMeeting {
    Meeting meeting;
    uint32_t mask;
    Site site;
    uint32_t arrived;
  };

  BlockRunner() = default;
  // Runs threads that have not begun one after the other, on one stack; one that waits keeps the
  // stack, and the next to begin gets another.
  [[noreturn]] static void RunThreads(Fiber& fiber);
  void Prepare(uint32_t count);
  void ResumeAs(Thread& thread);
  // Hands on from the stack at `from`, until it is continued at.
  void HandOn(Continuation& from);
  void Park();
  // Whether the next to run is one that has not begun.
  bool BeginsNext();
  void Release(Thread* first, uint32_t mask);
  [[noreturn]] void Deadlock() const;

  const KernelLaunch* launch_ = nullptr;
  Random* random_ = nullptr;
  SharedMemory shared_;
  // Those of the largest block so far; the first count_ are of the one that runs. They stay where
  // they are: others point to them.
  std::vector<std::unique_ptr<std::array<Thread, kLanes>>> warps_;
  uint32_t count_ = 0;
  uint32_t finished_ = 0;
  std::vector<Thread*> not_begun_;
  std::vector<Thread*> ready_;  // Have waited, and may go on.
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_fibers_;
  Thread* self_ = nullptr;
  Continuation main_;
  uint32_t at_barrier_ = 0;
  Site barrier_ = {};
  std::vector<std::vector<WarpMeeting>> meetings_;  // Per warp.
};

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_BLOCK_RUNNER_H_
