#include "tests/cuda_host/block_runner.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/symbols.h"

namespace expertmesh::cuda_host {
namespace {

const char* NameOf(Meeting meeting) {
  switch (meeting) {
    case Meeting::kSyncThreads:
      return "__syncthreads()";
    case Meeting::kSyncWarp:
      return "__syncwarp()";
    case Meeting::kShuffle:
      return "a shuffle";
    case Meeting::kMma:
      return "MmaBf16()";
    case Meeting::kLoadMatrix:
      return "LoadMatrix4()";
  }
  return "?";
}

bool IsSame(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::string(a.file) == b.file);
}

std::string Text(const Site& site) { return absl::StrCat(site.file, ":", site.line); }

std::string Text(const uint3& place) {
  return absl::StrCat("(", place.x, ", ", place.y, ", ", place.z, ")");
}

}  // namespace

Place current_place;

BlockRunner& BlockRunner::Get() {
  static auto* const runner = new BlockRunner();
  return *runner;
}

std::string BlockRunner::Name(const Thread& thread) const {
  return absl::StrCat("kernel ", FunctionAt(launch_->kernel), ", block ", Text(current_place.block),
                      ", thread ", Text(thread.place));
}

void BlockRunner::Fail(const std::string& what) const {
  Die(absl::StrCat(Name(*self_), ": ", what));
}

void BlockRunner::Prepare(uint32_t count) {
  count_ = count;
  finished_ = 0;
  at_barrier_ = 0;
  const uint32_t warps = (count + kLanes - 1) / kLanes;
  while (warps_.size() < warps) {
    warps_.push_back(std::make_unique<std::array<Thread, kLanes>>());
  }
  meetings_.assign(warps, {});
  ready_.clear();
  const dim3& size = launch_->block;
  for (uint32_t i = 0; i < count; ++i) {
    Thread& thread = (*warps_[i / kLanes])[i % kLanes];
    thread.fiber = nullptr;
    thread.index = i;
    thread.place = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    thread.waits = false;
    thread.copies.clear();
    thread.groups = 0;
    not_begun_.push_back(&thread);
  }
  random_->Shuffle(not_begun_.data(), not_begun_.size());
}

void BlockRunner::Run(const KernelLaunch& launch, uint3 block, Random& random) {
  launch_ = &launch;
  random_ = &random;
  current_place = {{}, block, launch.block, launch.grid};
  Prepare(launch.block.x * launch.block.y * launch.block.z);
  shared_.Begin(launch.kernel, launch.shared_bytes);
  main_ = Continuation::OfThread();
  HandOn(main_);
  shared_.End();
  self_ = nullptr;
}

void BlockRunner::RunThreads(Fiber& fiber) {
  BlockRunner& runner = Get();
  for (;;) {
    do {
      Thread& thread = *runner.not_begun_.back();
      runner.not_begun_.pop_back();
      thread.fiber = &fiber;
      runner.ResumeAs(thread);
      runner.launch_->body();
      ++runner.finished_;
    } while (runner.BeginsNext());
    runner.free_fibers_.push_back(&fiber);
    if (runner.finished_ < runner.count_) {
      runner.HandOn(fiber.continuation());
    } else {
      SwitchTo(fiber.continuation(), runner.main_);
    }
  }
}

void BlockRunner::ResumeAs(Thread& thread) {
  self_ = &thread;
  current_place.thread = thread.place;
}

bool BlockRunner::BeginsNext() {
  return !not_begun_.empty() && (ready_.empty() || random_->Below(2) == 0);
}

void BlockRunner::HandOn(Continuation& from) {
  if (BeginsNext()) {
    if (free_fibers_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(&RunThreads));
      free_fibers_.push_back(fibers_.back().get());
    }
    Fiber* const fiber = free_fibers_.back();
    free_fibers_.pop_back();
    SwitchTo(from, fiber->continuation());
    return;
  }
  if (ready_.empty()) {
    Deadlock();
  }
  Thread* const next = ready_.back();
  ready_.pop_back();
  SwitchTo(from, next->fiber->continuation());
}

void BlockRunner::Park() {
  Thread& self = *self_;
  HandOn(self.fiber->continuation());
  ResumeAs(self);
}

void BlockRunner::MeetBlock(const Site& site) {
  if (at_barrier_ > 0 && !IsSame(site, barrier_)) {
    Fail(absl::StrCat("is at the __syncthreads() of ", Text(site),
                      " while others of its block wait at that of ", Text(barrier_)));
  }
  barrier_ = site;
  Thread& self = *self_;
  if (++at_barrier_ < count_) {
    self.waits = true;
    self.meeting = Meeting::kSyncThreads;
    self.site = site;
    Park();
    return;
  }
  at_barrier_ = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    Thread& thread = (*warps_[i / kLanes])[i % kLanes];
    thread.waits = false;
    ready_.push_back(&thread);
  }
  random_->Shuffle(ready_.data(), ready_.size());
  // Itself included: the last to come need not be the first to go.
  if (ready_.back() == &self) {
    ready_.pop_back();
  } else {
    Park();
  }
}

void BlockRunner::Release(Thread* first, uint32_t mask) {
  const size_t before = ready_.size();
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if ((mask >> lane & 1) != 0 && &first[lane] != self_) {
      first[lane].waits = false;
      ready_.push_back(&first[lane]);
    }
  }
  random_->Shuffle(ready_.data() + before, ready_.size() - before);
}

void BlockRunner::MeetWarp(Meeting meeting, uint32_t mask, const Site& site,
                           void (*act)(Thread* lanes, uint32_t mask)) {
  Thread& self = *self_;
  const uint32_t lane = self.index % kLanes;
  const uint32_t warp = self.index / kLanes;
  const uint32_t lanes = std::min(kLanes, count_ - warp * kLanes);
  if ((mask >> lane & 1) == 0) {
    Fail(absl::StrCat(NameOf(meeting), " at ", Text(site), ": its own lane ", lane,
                      " is not in the mask 0x", absl::Hex(mask)));
  }
  if (lanes < kLanes && mask >> lanes != 0) {
    Fail(absl::StrCat(NameOf(meeting), " at ", Text(site), ": the mask 0x", absl::Hex(mask),
                      " names lanes that do not exist: its warp has ", lanes));
  }
  std::vector<WarpMeeting>& open = meetings_[warp];
  auto found = std::find_if(open.begin(), open.end(), [&](const WarpMeeting& other) {
    return other.meeting == meeting && other.mask == mask && IsSame(other.site, site);
  });
  if (found == open.end()) {
    open.push_back({meeting, mask, site, 0});
    found = std::prev(open.end());
  }
  found->arrived |= 1u << lane;
  if (found->arrived != mask) {
    self.waits = true;
    self.meeting = meeting;
    self.site = site;
    self.mask = mask;
    Park();
    return;
  }
  open.erase(found);
  if (act != nullptr) {
    act(warps_[warp]->data(), mask);
  }
  Release(warps_[warp]->data(), mask);
}

void BlockRunner::Deadlock() const {
  std::string text = absl::StrCat("kernel ", FunctionAt(launch_->kernel), ", block ",
                                  Text(current_place.block), ": ", finished_, " of ", count_,
                                  " threads have returned, and the others wait for ever:");
  int named = 0;
  std::vector<const Thread*> shown;
  for (uint32_t i = 0; i < count_ && named < 4; ++i) {
    const Thread& thread = (*warps_[i / kLanes])[i % kLanes];
    const bool is_new =
        thread.waits && std::none_of(shown.begin(), shown.end(), [&](auto* other) {
          return other->meeting == thread.meeting && IsSame(other->site, thread.site);
        });
    if (is_new) {
      shown.push_back(&thread);
      ++named;
      absl::StrAppend(&text, named == 1 ? " " : "; ", "thread ", Text(thread.place), " at ",
                      NameOf(thread.meeting), " of ", Text(thread.site));
      if (thread.meeting != Meeting::kSyncThreads) {
        absl::StrAppend(&text, " with mask 0x", absl::Hex(thread.mask));
      }
    }
  }
  Die(text);
}

void RunBlock(const KernelLaunch& launch, uint3 block, Random& random) {
  BlockRunner::Get().Run(launch, block, random);
}

std::string RunningThread() {
  BlockRunner& runner = BlockRunner::Get();
  return runner.running() ? runner.Name(runner.self()) : "";
}

bool IsBelowRunningStack(const void* address) {
  BlockRunner& runner = BlockRunner::Get();
  return runner.running() && runner.self().fiber->Overflowed(address);
}

}  // namespace expertmesh::cuda_host
