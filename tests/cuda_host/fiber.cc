#include "tests/cuda_host/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>

#include "tests/cuda_host/die.h"

#ifdef __SANITIZE_ADDRESS__
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

// ThreadSanitizer counts the functions that a stack enters and leaves; those that switch begin on
// one stack and end on another.
#define EXPERTMESH_UNCOUNTED __attribute__((noinline, no_sanitize("thread")))

namespace expertmesh::cuda_host {
namespace {

size_t PageBytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// Not in the function that calls __builtin_setjmp, as that demands.
[[noreturn]] EXPERTMESH_UNCOUNTED void Jump(Continuation& to) { __builtin_longjmp(to.state, 1); }

// Around a switch of stacks; what Leave returns is for Arrive, on the stack that was left.
EXPERTMESH_UNCOUNTED void* Leave([[maybe_unused]] const Continuation& to) {
  void* kept = nullptr;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&kept, to.stack, to.stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(to.fiber, 0);
#endif
  return kept;
}

EXPERTMESH_UNCOUNTED void Arrive([[maybe_unused]] void* kept) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(kept, nullptr, nullptr);
#endif
}

// While a fiber is made, by the one thread that runs kernels.
ucontext_t creator;
Continuation creators;

constexpr size_t kStackStep = 64 * 5;

// Until the fiber is ready to be continued at.
EXPERTMESH_UNCOUNTED void Start(const Continuation& fiber, const ucontext_t& context) {
  creators = Continuation::OfThread();
  void* const kept = Leave(fiber);
  swapcontext(&creator, &context);
  Arrive(kept);
}

}  // namespace

Continuation Continuation::OfThread() {
  Continuation thread;
#ifdef __SANITIZE_ADDRESS__
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* stack = nullptr;
  pthread_attr_getstack(&attributes, &stack, &thread.stack_bytes);
  thread.stack = stack;
  pthread_attr_destroy(&attributes);
#endif
#ifdef __SANITIZE_THREAD__
  thread.fiber = __tsan_get_current_fiber();
#endif
  return thread;
}

// Not swapcontext, which asks the kernel for the signal mask at each switch.
EXPERTMESH_UNCOUNTED void SwitchTo(Continuation& from, Continuation& to) {
  void* const kept = Leave(to);
  if (__builtin_setjmp(from.state) == 0) {
    Jump(to);
  }
  Arrive(kept);
}

Fiber::Fiber(void (*run)(Fiber&)) : run_(run) {
  void* memory = mmap(nullptr, kFiberStackBytes + PageBytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    Die("no memory for the stack of a thread");
  }
  stack_ = static_cast<char*>(memory);
  mprotect(stack_, PageBytes(), PROT_NONE);
  continuation_.stack = stack_ + PageBytes();
  continuation_.stack_bytes = kFiberStackBytes;
#ifdef __SANITIZE_THREAD__
  continuation_.fiber = __tsan_create_fiber(0);
#endif
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack_ + PageBytes();
  // Stacks that begin at the same place of their pages would share few lines of the caches.
  static size_t made = 0;
  context.uc_stack.ss_size = kFiberStackBytes - made++ * kStackStep % PageBytes();
  context.uc_link = nullptr;
  // makecontext passes ints.
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&context, reinterpret_cast<void (*)()>(&Fiber::Main), 2,
              static_cast<unsigned int>(self >> 32), static_cast<unsigned int>(self));
  Start(continuation_, context);
}

EXPERTMESH_UNCOUNTED void Fiber::Main(unsigned int high, unsigned int low) {
  auto* self = reinterpret_cast<Fiber*>((static_cast<uintptr_t>(high) << 32) | low);
  Arrive(nullptr);
  void* const kept = Leave(creators);
  if (__builtin_setjmp(self->continuation_.state) == 0) {
    setcontext(&creator);
  }
  Arrive(kept);
  self->run_(*self);
}

bool Fiber::Overflowed(const void* address) const {
  return address >= stack_ && address < stack_ + PageBytes();
}

}  // namespace expertmesh::cuda_host
