#include "tests/cuda_host/memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "tests/cuda_host/block.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/symbols.h"

namespace expertmesh::cuda_host {
namespace {

constexpr size_t kAlignment = 256;  // As cudaMalloc's.
constexpr size_t kSignalStackBytes = 256 << 10;
// Allocations that stay open for the next piece of work, whose margins are looked at after each.
constexpr size_t kMostOpen = 16;

// What the calling thread does with device memory; null: it must not touch it.
thread_local const std::string* work = nullptr;

// A thread's kernels run on small stacks, and may run out of them.
class SignalStack {
 public:
  SignalStack() : memory_(new char[kSignalStackBytes]) {
    stack_t stack = {};
    stack.ss_sp = memory_.get();
    stack.ss_size = kSignalStackBytes;
    sigaltstack(&stack, nullptr);
  }
  ~SignalStack() {
    stack_t stack = {};
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, nullptr);
  }

 private:
  std::unique_ptr<char[]> memory_;
};

bool IsPoison(const char* begin, const char* end) {
  return std::all_of(begin, end, [](char c) { return c == static_cast<char>(kPoison); });
}

}  // namespace

size_t PageBytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

bool IsDeviceAccessible(const void* pointer) {
  return Memory::Get().Find(pointer).kind != Memory::Kind::kNeither;
}

Memory& Memory::Get() {
  static auto* const memory = new Memory();
  return *memory;
}

Memory::Memory() {
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  action.sa_sigaction = [](int signal, siginfo_t* info, void* context) {
    OnFault(signal, info->si_addr, context);
  };
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

void Memory::OnFault(int signal, void* address, void*) {
  if (Get().Touch(static_cast<char*>(address))) {
    return;
  }
  if (work != nullptr) {
    if (IsBelowRunningStack(address)) {
      Die(absl::StrCat(Work(), ": the stack of ", 128, " KiB that a thread has here is full"));
    }
    Die(absl::StrCat(Work(), " touches 0x", absl::Hex(reinterpret_cast<uintptr_t>(address)),
                     ", which is no device memory"));
  }
  // Something else's fault: it happens again, and ends the program as it always did.
  ::signal(signal, SIG_DFL);
}

std::string Memory::Work() {
  const std::string thread = RunningThread();
  return thread.empty() ? *work : thread;
}

std::string Memory::Describe(const Allocation& allocation) {
  return absl::StrCat(allocation.kind == Kind::kDevice ? "device" : "pinned", " allocation ",
                      allocation.number, " (", allocation.bytes, " bytes, made by ",
                      cuda_host::Describe(allocation.made_by), ")");
}

void Memory::DieOf(const Allocation& allocation, const char* address, const std::string& what) {
  Die(absl::StrCat(work == nullptr ? "host code" : Work(), " ", what, " at byte ",
                   address - allocation.data, " of ", Describe(allocation)));
}

void* Memory::Allocate(Kind kind, size_t bytes) {
  auto allocation = std::make_unique<Allocation>();
  const size_t page_bytes = RoundUp(RoundUp(bytes, kAlignment), PageBytes());
  const size_t map_bytes = page_bytes + 2 * PageBytes();
  void* map =
      mmap(nullptr, map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) {
    return nullptr;
  }
  allocation->kind = kind;
  allocation->map = static_cast<char*>(map);
  allocation->map_bytes = map_bytes;
  allocation->pages = allocation->map + PageBytes();
  allocation->page_bytes = page_bytes;
  allocation->data = allocation->pages + page_bytes - RoundUp(bytes, kAlignment);
  allocation->bytes = bytes;
  allocation->made_by = Stack();
  if (kind == Kind::kPinned) {
    mprotect(allocation->pages, page_bytes, PROT_READ | PROT_WRITE);
    std::memset(allocation->pages, kPoison, page_bytes);
  }
  void* const data = allocation->data;
  const absl::MutexLock lock(&mutex_);
  allocation->number = ++made_;
  device_bytes_ += kind == Kind::kDevice ? bytes : 0;
  allocations_[allocation->map] = std::move(allocation);
  return data;
}

void Memory::Free(Kind kind, void* pointer) {
  const absl::MutexLock lock(&mutex_);
  auto found = allocations_.upper_bound(static_cast<char*>(pointer));
  Allocation* allocation = found == allocations_.begin() ? nullptr : std::prev(found)->second.get();
  const char* const call = kind == Kind::kDevice ? "cudaFree" : "cudaFreeHost";
  if (allocation == nullptr || pointer >= allocation->map + allocation->map_bytes) {
    Die(absl::StrCat(call, " of what was never allocated"));
  }
  if (allocation->kind != kind || allocation->data != pointer) {
    Die(absl::StrCat(call, " of a pointer to byte ", static_cast<char*>(pointer) - allocation->data,
                     " of ", Describe(*allocation)));
  }
  if (allocation->freed) {
    Die(absl::StrCat(call, " a second time of ", Describe(*allocation)));
  }
  if (kind == Kind::kPinned && (!IsPoison(allocation->pages, allocation->data) ||
                                !IsPoison(allocation->data + allocation->bytes,
                                          allocation->pages + allocation->page_bytes))) {
    Die(absl::StrCat("something wrote beside ", Describe(*allocation)));
  }
  allocation->freed = true;
  device_bytes_ -= kind == Kind::kDevice ? allocation->bytes : 0;
  // Never used again, so that what still touches it is found out. A new mapping in the place of the
  // old: the kernel joins it with its neighbours, of which a process may have so many.
  mmap(allocation->map, allocation->map_bytes, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

Memory::Range Memory::Find(const void* pointer) {
  const char* const address = static_cast<const char*>(pointer);
  const absl::MutexLock lock(&mutex_);
  auto found = allocations_.upper_bound(address);
  if (found == allocations_.begin()) {
    return {};
  }
  const Allocation& allocation = *std::prev(found)->second;
  if (allocation.freed || address < allocation.data ||
      address > allocation.data + allocation.bytes) {
    return {};
  }
  return {allocation.kind, allocation.data, allocation.bytes,
          static_cast<size_t>(allocation.data + allocation.bytes - address)};
}

size_t Memory::DeviceBytes() {
  const absl::MutexLock lock(&mutex_);
  return device_bytes_;
}

std::vector<std::string> Memory::Leaks() {
  const absl::MutexLock lock(&mutex_);
  std::vector<std::string> leaks;
  for (const auto& [map, allocation] : allocations_) {
    if (!allocation->freed) {
      leaks.push_back(Describe(*allocation));
    }
  }
  return leaks;
}

void Memory::Reset() {
  const absl::MutexLock lock(&mutex_);
  for (const auto& [map, allocation] : allocations_) {
    munmap(allocation->map, allocation->map_bytes);
  }
  allocations_.clear();
  device_bytes_ = 0;
  made_ = 0;
  open_.clear();
  written_.clear();
  tracking_ = false;
}

void Memory::BeginAccess(const std::string& what) {
  thread_local const SignalStack stack;
  work = &what;
}

void Memory::EndAccess() {
  Close();
  work = nullptr;
}

void Memory::Track() {
  Close();
  tracking_ = true;
}

void Memory::Untrack() {
  CheckMargins();
  Close();
  tracking_ = false;
}

void Memory::Close() {
  const absl::MutexLock lock(&mutex_);
  for (Allocation* allocation : open_) {
    mprotect(allocation->pages, allocation->page_bytes, PROT_NONE);
    allocation->access = Access::kNone;
  }
  open_.clear();
  written_.clear();
}

void Memory::EndWork() {
  CheckMargins();
  if (open_.size() > kMostOpen) {
    Close();
  }
}

void Memory::CheckMargins() {
  const absl::MutexLock lock(&mutex_);
  for (const Allocation* allocation : open_) {
    // Freed: by another thread, after all work that was queued then.
    if (allocation->freed || (allocation->access != Access::kWrite && !tracking_)) {
      continue;
    }
    if (!IsPoison(allocation->pages, allocation->data)) {
      Die(absl::StrCat(*work, " wrote before the first byte of ", Describe(*allocation)));
    }
    if (!IsPoison(allocation->data + allocation->bytes,
                  allocation->pages + allocation->page_bytes)) {
      Die(absl::StrCat(*work, " wrote past the last byte of ", Describe(*allocation)));
    }
  }
}

bool Memory::Touch(char* address) {
  const absl::MutexLock lock(&mutex_);
  auto found = allocations_.upper_bound(address);
  if (found == allocations_.begin()) {
    return false;
  }
  Allocation& allocation = *std::prev(found)->second;
  if (address >= allocation.map + allocation.map_bytes) {
    return false;
  }
  if (allocation.freed) {
    DieOf(allocation, address, "touches freed memory");
  }
  if (address < allocation.pages || address >= allocation.pages + allocation.page_bytes) {
    DieOf(allocation, address, "touches memory out of bounds");
  }
  if (work == nullptr) {
    DieOf(allocation, address, "touches device memory");
  }
  Open(allocation, address);
  return true;
}

// The first touch opens an allocation for reading; if it was a write, it comes again.
void Memory::Open(Allocation& allocation, char* address) {
  constexpr int kReadWrite = PROT_READ | PROT_WRITE;
  if (!allocation.poisoned) {
    mprotect(allocation.pages, allocation.page_bytes, kReadWrite);
    std::memset(allocation.pages, kPoison, allocation.page_bytes);
    allocation.poisoned = true;
  }
  if (allocation.access == Access::kNone) {
    mprotect(allocation.pages, allocation.page_bytes, PROT_READ);
    allocation.access = Access::kRead;
    open_.push_back(&allocation);
  } else if (tracking_) {
    const size_t bytes = PageBytes();
    char* const page = allocation.pages + (address - allocation.pages) / bytes * bytes;
    WrittenPage written = {page, std::make_unique<char[]>(bytes)};
    std::memcpy(written.before.get(), page, bytes);
    written_.push_back(std::move(written));
    mprotect(page, bytes, kReadWrite);
  } else {
    mprotect(allocation.pages, allocation.page_bytes, kReadWrite);
    allocation.access = Access::kWrite;
  }
}

}  // namespace expertmesh::cuda_host
