#include "tests/cuda_host/grid.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cuda_host/device_state.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/symbols.h"

namespace expertmesh::cuda_host {
namespace {

// Pages times blocks that are compared at most: 256 MiB.
constexpr uint64_t kComparedPages = 1 << 16;
// Launches of so many blocks run in both orders.
constexpr uint64_t kFewBlocks = 8;
// Launches of a kernel with one grid that are checked: the first ones, and one in so many later.
constexpr uint64_t kAlwaysChecked = 4;
constexpr uint64_t kOneIn = 8;

uint64_t BlocksOf(const KernelLaunch& launch) {
  return uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
}

uint3 BlockAt(const KernelLaunch& launch, uint64_t index) {
  const uint64_t x = launch.grid.x;
  const uint64_t y = launch.grid.y;
  return {static_cast<unsigned int>(index % x), static_cast<unsigned int>(index / x % y),
          static_cast<unsigned int>(index / x / y)};
}

// A step that has no divisor in common with the number of blocks visits them all.
void RunInSomeOrder(const KernelLaunch& launch, Random& random) {
  const uint64_t blocks = BlocksOf(launch);
  const uint64_t first = random.Next() % blocks;
  uint64_t step = random.Next() % blocks;
  while (std::gcd(step, blocks) != 1) {
    ++step;
  }
  for (uint64_t i = 0, index = first; i < blocks; ++i, index = (index + step) % blocks) {
    RunBlock(launch, BlockAt(launch, index), random);
  }
}

bool HasPinned(const KernelLaunch& launch) {
  return std::any_of(launch.pointers.begin(), launch.pointers.end(), [](const void* pointer) {
    return Memory::Get().Find(pointer).kind == Memory::Kind::kPinned;
  });
}

bool IsItsTurn(const KernelLaunch& launch, Random& random) {
  return DeviceState::Get().CountLaunch(launch.kernel, launch.grid) < kAlwaysChecked ||
         random.Below(kOneIn) == 0;
}

class CheckedGrid {
 public:
  CheckedGrid(const KernelLaunch& launch, Random& random)
      : launch_(launch), blocks_(BlocksOf(launch)), random_(random) {}

  // Leaves memory as it was and returns false if that would take too long.
  bool Run();

 private:
  // What the blocks, each from the memory as it was, made of a page.
  struct Page {
    std::unique_ptr<char[]> after;
    std::vector<int32_t> writer;  // Per byte; -1: none.
  };

  // Takes what block `index` changed, and puts back what was before.
  void Collect(uint64_t index);
  void RunInOrder(bool ascending);
  void PutBack();
  std::string Place(const char* byte) const;
  std::string Text(uint64_t index) const;

  const KernelLaunch& launch_;
  const uint64_t blocks_;
  Random& random_;
  std::vector<Page> pages_;  // As Memory::written().
};

std::string CheckedGrid::Text(uint64_t index) const {
  const uint3 block = BlockAt(launch_, index);
  return absl::StrCat("(", block.x, ", ", block.y, ", ", block.z, ")");
}

std::string CheckedGrid::Place(const char* byte) const {
  const Memory::Range range = Memory::Get().Find(byte);
  return absl::StrCat("byte ", byte - range.data, " of a device allocation of ", range.bytes,
                      " bytes");
}

void CheckedGrid::Collect(uint64_t index) {
  const size_t bytes = PageBytes();
  const std::vector<WrittenPage>& written = Memory::Get().written();
  for (size_t p = 0; p < written.size(); ++p) {
    char* const now = written[p].page;
    const char* const before = written[p].before.get();
    if (p == pages_.size()) {
      pages_.push_back({std::make_unique<char[]>(bytes), std::vector<int32_t>(bytes, -1)});
      std::memcpy(pages_[p].after.get(), before, bytes);
    }
    if (std::memcmp(now, before, bytes) == 0) {
      continue;
    }
    for (size_t i = 0; i < bytes; ++i) {
      if (now[i] == before[i]) {
        continue;
      }
      int32_t& writer = pages_[p].writer[i];
      if (writer >= 0) {
        Die(absl::StrCat("kernel ", FunctionAt(launch_.kernel), ": a race: blocks ",
                         Text(static_cast<uint64_t>(writer)), " and ", Text(index), " both write ",
                         Place(now + i)));
      }
      writer = static_cast<int32_t>(index);
      pages_[p].after[i] = now[i];
    }
    std::memcpy(now, before, bytes);
  }
}

void CheckedGrid::PutBack() {
  for (const WrittenPage& written : Memory::Get().written()) {
    std::memcpy(written.page, written.before.get(), PageBytes());
  }
}

void CheckedGrid::RunInOrder(bool ascending) {
  for (uint64_t i = 0; i < blocks_; ++i) {
    RunBlock(launch_, BlockAt(launch_, ascending ? i : blocks_ - 1 - i), random_);
  }
  const size_t bytes = PageBytes();
  const std::vector<WrittenPage>& written = Memory::Get().written();
  for (size_t p = 0; p < written.size(); ++p) {
    const char* const expected =
        p < pages_.size() ? pages_[p].after.get() : written[p].before.get();
    const auto [now, other] = std::mismatch(written[p].page, written[p].page + bytes, expected);
    if (now != written[p].page + bytes) {
      Die(absl::StrCat("kernel ", FunctionAt(launch_.kernel),
                       ": a race of blocks or of threads: all blocks, one after the other (",
                       ascending ? "as" : "des",
                       "cending), leave other bytes than each alone, first at ", Place(now)));
    }
  }
}

bool CheckedGrid::Run() {
  for (uint64_t index = 0; index < blocks_; ++index) {
    RunBlock(launch_, BlockAt(launch_, index), random_);
    Collect(index);
    if (pages_.size() * blocks_ > kComparedPages) {
      return false;
    }
  }
  const bool ascending = random_.Below(2) == 0;
  RunInOrder(ascending);
  if (blocks_ <= kFewBlocks) {
    PutBack();
    RunInOrder(!ascending);
  }
  return true;
}

}  // namespace

void RunGrid(const KernelLaunch& launch, uint64_t checked_blocks, Random& random) {
  const uint64_t blocks = BlocksOf(launch);
  if (blocks < 2 || blocks > checked_blocks || HasPinned(launch) || !IsItsTurn(launch, random)) {
    RunInSomeOrder(launch, random);
    return;
  }
  Memory::Get().Track();
  const bool done = CheckedGrid(launch, random).Run();
  Memory::Get().Untrack();
  if (!done) {
    RunInSomeOrder(launch, random);
  }
}

}  // namespace expertmesh::cuda_host
