// Heap allocations of one batch on the router's way, once everything is warm, by stage. This
// program alone has its own operator new.

#include <execinfo.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/debugging/symbolize.h"
#include "absl/strings/match.h"
#include "tests/unit/router_service/router_fixture.h"

namespace {

constexpr size_t kMostRecorded = 1 << 14;
constexpr int kMostFrames = 40;

struct Record {
  void* frames[kMostFrames];
  int count;
};

std::atomic<bool> recording{false};
std::atomic<size_t> recorded{0};
Record records[kMostRecorded];
thread_local bool inside = false;  // backtrace() may allocate.

void Note() {
  if (!recording.load(std::memory_order_relaxed) || inside) {
    return;
  }
  inside = true;
  const size_t at = recorded.fetch_add(1, std::memory_order_relaxed);
  if (at < kMostRecorded) {
    records[at].count = backtrace(records[at].frames, kMostFrames);
  }
  inside = false;
}

void* Allocate(size_t size, size_t alignment) {
  Note();
  void* const memory =
      alignment <= alignof(std::max_align_t)
          ? std::malloc(size == 0 ? 1 : size)
          : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (memory == nullptr) {
    std::abort();
  }
  return memory;
}

}  // namespace

// Inlined, GCC would take free() for the wrong partner of new.
[[gnu::noinline]] void* operator new(size_t size) { return Allocate(size, 1); }
[[gnu::noinline]] void* operator new[](size_t size) { return Allocate(size, 1); }
[[gnu::noinline]] void* operator new(size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment));
}
[[gnu::noinline]] void* operator new[](size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace expertmesh {
namespace {

// Part of a function's name, and the stage it belongs to; the innermost of them on the stack
// counts.
const std::vector<std::pair<std::string, std::string>>& Stages() {
  static const auto* const stages = new std::vector<std::pair<std::string, std::string>>{
      {"FakeNode::", "(node)"},         {"RouterTest", "(test)"},
      {"InProcess", "(transport)"},     {"GatherRows", "gather"},
      {"BatchRun::Route", "route"},     {"PlanBatch", "plan"},
      {"EncodeFrames", "encode"},       {"NodeLink::Send", "send"},
      {"BatchRun::Send", "send"},       {"BatchRun::Dispatch", "dispatch"},
      {"NodeLink::OnFrame", "receive"}, {"OnPartDone", "receive"},
      {"Combine(", "combine"},          {"SumParts", "combine"},
      {"CombineAndAnswer", "answer"},   {"LayerBatcher", "batcher"},
      {"Router::RunBatch", "batcher"},  {"Router::Forward", "accept"},
      {"BatchRun::", "run, rest"},      {"ThreadPool", "run, rest"},
  };
  return *stages;
}

std::string StageOf(const Record& record) {
  for (int i = 0; i < record.count; ++i) {
    char name[512];
    if (!absl::Symbolize(record.frames[i], name, sizeof(name))) {
      continue;
    }
    for (const auto& [part, stage] : Stages()) {
      if (absl::StrContains(name, part)) {
        return stage;
      }
    }
  }
  return "(other)";
}

class RouterAllocationsTest : public RouterTest {
 protected:
  // Allocations by stage, of one request of `tokens` tokens.
  std::map<std::string, size_t> Count(size_t tokens) {
    v1::ForwardRequest request;
    request.set_layer(1);
    const Frame frame = Encode(request, RandomRows(7, tokens));
    for (int i = 0; i < 50; ++i) {
      Run(frame);
    }
    recorded = 0;
    recording = true;
    Run(frame);
    recording = false;
    EXPECT_LE(recorded, kMostRecorded);
    const size_t count = std::min<size_t>(recorded, kMostRecorded);
    std::map<std::string, size_t> found;
    for (size_t i = 0; i < count; ++i) {
      ++found[StageOf(records[i])];
    }
    return found;
  }

  void Run(const Frame& frame) {
    absl::Notification done;
    absl::Status status;
    router_->Forward(frame, absl::InfiniteFuture(),
                     [&](v1::ForwardResponse response, std::optional<TensorFrame>) {
                       EXPECT_EQ(response.status().code(), 0);
                       done.Notify();
                     });
    done.WaitForNotification();
  }
};

TEST_F(RouterAllocationsTest, OfOneBatchByStage) {
  FakeCheckpointOptions checkpoint;
  checkpoint.top_k = 4;
  RouterOptions options;
  options.threads = 1;
  StartRouter(options, checkpoint);
  AddNode("a:1", {0, 1, 2});
  AddNode("b:1", {3, 4, 5});
  Connect();
  const std::map<std::string, size_t> few = Count(1);
  const std::map<std::string, size_t> many = Count(512);
  size_t of_few = 0;
  size_t of_many = 0;
  std::printf("%-12s %8s %8s\n", "stage", "T = 1", "T = 512");
  for (const auto& [stage, count] : many) {
    const auto found = few.find(stage);
    const size_t before = found == few.end() ? 0 : found->second;
    std::printf("%-12s %8zu %8zu\n", stage.c_str(), before, count);
    if (stage.front() != '(') {
      of_few += before;
      of_many += count;
    }
  }
  std::printf("%-12s %8zu %8zu\n", "router", of_few, of_many);
  EXPECT_GT(of_few, 0u);
  // Vectors that grow by doubling may, but nothing allocates for each token.
  EXPECT_LT(of_many, of_few + 512);
}

}  // namespace
}  // namespace expertmesh

int main(int argc, char** argv) {
  absl::InitializeSymbolizer(argv[0]);
  void* frame = nullptr;
  backtrace(&frame, 1);  // Loads what it needs.
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
