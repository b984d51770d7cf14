// What the threads of a kernel call (cuda_host/device.h).
#include "cuda_host/device.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/cuda_host/block_runner.h"
#include "tests/cuda_host/memory.h"

namespace expertmesh::cuda_host {
namespace {

constexpr size_t kCopyBytes = 16;

bool IsAligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kCopyBytes == 0;
}

void ExchangeValues(Thread* lanes, uint32_t mask) {
  uint32_t values[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    values[lane] = lanes[lane].value;
  }
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if ((mask >> lane & 1) == 0) {
      continue;
    }
    const uint32_t source = lanes[lane].source;
    if ((mask >> source & 1) == 0) {
      BlockRunner::Get().Fail(absl::StrCat("a shuffle: lane ", lane, " reads lane ", source,
                                           ", which is not in the mask 0x", absl::Hex(mask)));
    }
    lanes[lane].value = values[source];
  }
}

float Low(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
float High(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

// The lanes' fragments as matrices, the product in ascending columns of a, and back. Products of
// two bf16 numbers are exact in float32; hardware rounds their sums in some other way, but the same
// way for every element.
void Multiply(Thread* lanes, uint32_t) {
  float a[16][16];
  float b[16][8];
  float d[16][8];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    const uint32_t g = lane / 4;
    const uint32_t t = lane % 4 * 2;
    const auto* from_a = static_cast<const uint32_t*>(lanes[lane].a);
    for (uint32_t i = 0; i < 4; ++i) {
      float* const to = &a[g + i % 2 * 8][t + i / 2 * 8];
      to[0] = Low(from_a[i]);
      to[1] = High(from_a[i]);
    }
    const auto* from_b = static_cast<const uint32_t*>(lanes[lane].b);
    for (uint32_t i = 0; i < 2; ++i) {
      b[t + i * 8][g] = Low(from_b[i]);
      b[t + i * 8 + 1][g] = High(from_b[i]);
    }
    const auto* from_d = static_cast<const float*>(lanes[lane].result);
    for (uint32_t i = 0; i < 4; ++i) {
      d[g + i / 2 * 8][t + i % 2] = from_d[i];
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) {
        d[row][column] += a[row][k] * b[k][column];
      }
    }
  }
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    auto* const to = static_cast<float*>(lanes[lane].result);
    for (uint32_t i = 0; i < 4; ++i) {
      to[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
  }
}

void LoadMatrices(Thread* lanes, uint32_t) {
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    auto* const to = static_cast<uint32_t*>(lanes[lane].result);
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
      const auto* row = static_cast<const char*>(lanes[matrix * 8 + lane / 4].a);
      std::memcpy(&to[matrix], row + lane % 4 * sizeof(uint32_t), sizeof(uint32_t));
    }
  }
}

}  // namespace

void SyncThreads(const Site& site) { BlockRunner::Get().MeetBlock(site); }

void SyncWarp(uint32_t mask, const Site& site) {
  BlockRunner::Get().MeetWarp(Meeting::kSyncWarp, mask, site, nullptr);
}

uint32_t Lane() { return BlockRunner::Get().self().index % kLanes; }

uint32_t Shuffle(uint32_t mask, uint32_t value, uint32_t source, const Site& site) {
  BlockRunner& runner = BlockRunner::Get();
  Thread& self = runner.self();
  self.value = value;
  self.source = source;
  runner.MeetWarp(Meeting::kShuffle, mask, site, &ExchangeValues);
  return self.value;
}

void* DynamicSharedBytes() { return BlockRunner::Get().shared().dynamic(); }

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  BlockRunner& runner = BlockRunner::Get();
  Thread& self = runner.self();
  self.a = a;
  self.b = b;
  self.result = d;
  runner.MeetWarp(Meeting::kMma, kAllLanes, Site::Current(), &Multiply);
}

void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  BlockRunner& runner = BlockRunner::Get();
  Thread& self = runner.self();
  if (!runner.shared().Holds(shared_row, kCopyBytes)) {
    runner.Fail("LoadMatrix4() of what is not shared memory of its block");
  }
  if (!IsAligned(shared_row)) {
    runner.Fail("LoadMatrix4() of a row that is not 16-byte aligned");
  }
  self.a = shared_row;
  self.result = r;
  runner.MeetWarp(Meeting::kLoadMatrix, kAllLanes, Site::Current(), &LoadMatrices);
}

void CopyAsync16(void* shared, const void* global) {
  BlockRunner& runner = BlockRunner::Get();
  Thread& self = runner.self();
  if (!runner.shared().Holds(shared, kCopyBytes)) {
    runner.Fail("CopyAsync16() to what is not shared memory of its block");
  }
  if (!IsAligned(shared) || !IsAligned(global)) {
    runner.Fail("CopyAsync16() of what is not 16-byte aligned");
  }
  if (!IsDeviceAccessible(global)) {
    runner.Fail("CopyAsync16() from what is not device memory: a copy is missing");
  }
  std::memset(shared, kPoison, kCopyBytes);
  self.copies.push_back({shared, global, self.groups});
}

void CommitCopies() { ++BlockRunner::Get().self().groups; }

void WaitCopies(int pending) {
  Thread& self = BlockRunner::Get().self();
  const int end = self.groups - pending;
  const auto first_kept = std::find_if(self.copies.begin(), self.copies.end(),
                                       [end](const AsyncCopy& copy) { return copy.group >= end; });
  for (auto copy = self.copies.begin(); copy != first_kept; ++copy) {
    std::memcpy(copy->to, copy->from, kCopyBytes);
  }
  self.copies.erase(self.copies.begin(), first_kept);
}

}  // namespace expertmesh::cuda_host
