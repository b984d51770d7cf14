#include "common/checkpoint/fault_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "absl/base/call_once.h"
#include "common/base/check.h"

namespace expertmesh::checkpoint {
namespace {

constexpr size_t kNone = SIZE_MAX;

}  // namespace

// One mapping: lock-free, since a handler may wait for nothing.
struct FaultGuard::Slot {
  // 0: free.
  std::atomic<uintptr_t> begin{0};
  std::atomic<size_t> size{0};
  std::atomic<size_t> first_fault{kNone};
  std::atomic<bool> taken{false};
  Slot* next = nullptr;
};

struct FaultGuard::Handler {
  static void Install();
  static Slot* TakeSlot();
  // Puts zeros where `address` lies, if that is in a guarded mapping.
  static bool Replace(uintptr_t address);
  static void OnBusError(int signal, siginfo_t* info, void* context);

  // Used again and never freed, so the handler may look at any of them at any time.
  static inline std::atomic<Slot*> slots{nullptr};
  // Constant once installed.
  static inline uintptr_t page_size = 0;
  static inline struct sigaction previous = {};
};

bool FaultGuard::Handler::Replace(uintptr_t address) {
  for (Slot* slot = slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next) {
    const uintptr_t begin = slot->begin.load();
    const size_t size = slot->size.load();
    // Read again: the slot did not change hands between the two.
    if (begin == 0 || begin != slot->begin.load() || address < begin || address - begin >= size) {
      continue;
    }
    const uintptr_t page = address / page_size * page_size;
    // Before the zeros can be seen.
    size_t first = slot->first_fault.load();
    while (page - begin < first && !slot->first_fault.compare_exchange_weak(first, page - begin)) {
    }
    return mmap(reinterpret_cast<void*>(page), begin + size - page, PROT_READ,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
  }
  return false;
}

void FaultGuard::Handler::OnBusError(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  // From the kernel, not from kill().
  if (info->si_code > 0 && Replace(reinterpret_cast<uintptr_t>(info->si_addr))) {
    errno = saved_errno;
    return;
  }
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signal);
  } else {
    struct sigaction by_default = {};
    by_default.sa_handler = SIG_DFL;
    sigaction(signal, &by_default, nullptr);
    raise(signal);
  }
  errno = saved_errno;
}

void FaultGuard::Handler::Install() {
  page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action = {};
  action.sa_sigaction = &OnBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  // Read first: a fault may come as soon as the handler is there.
  EXPERTMESH_CHECK(sigaction(SIGBUS, nullptr, &previous) == 0);
  EXPERTMESH_CHECK(sigaction(SIGBUS, &action, nullptr) == 0);
}

FaultGuard::Slot* FaultGuard::Handler::TakeSlot() {
  for (Slot* slot = slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next) {
    if (!slot->taken.exchange(true)) {
      return slot;
    }
  }
  Slot* const slot = new Slot;
  slot->taken = true;
  slot->next = slots.load();
  while (!slots.compare_exchange_weak(slot->next, slot)) {
  }
  return slot;
}

FaultGuard::FaultGuard(const void* data, size_t size) {
  static absl::once_flag once;
  absl::call_once(once, Handler::Install);
  slot_ = Handler::TakeSlot();
  slot_->first_fault = kNone;
  slot_->size = size;
  slot_->begin = reinterpret_cast<uintptr_t>(data);
}

FaultGuard::~FaultGuard() {
  slot_->begin = 0;
  slot_->taken = false;
}

std::optional<size_t> FaultGuard::first_fault() const {
  const size_t first = slot_->first_fault;
  return first == kNone ? std::nullopt : std::optional<size_t>(first);
}

}  // namespace expertmesh::checkpoint
