// Threads of a kernel: stacks of their own that hand the CPU to one another. A switch takes some
// 10 ns, without a system call, and stacks are used again, so that a block of 1,024 threads starts
// in microseconds. Sanitizers are told of every switch.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_FIBER_H_
#define EXPERTMESH_TESTS_CUDA_HOST_FIBER_H_

#include <cstddef>

namespace expertmesh::cuda_host {

// A place to continue at.
struct Continuation {
  // For the calling thread: where it is left first, and what it comes back to.
  static Continuation OfThread();

  void* state[5] = {};  // As __builtin_setjmp wants it.
  // For sanitizers.
  void* fiber = nullptr;
  const void* stack = nullptr;
  size_t stack_bytes = 0;
};

// Continues at `to`; returns when something continues at `from`.
void SwitchTo(Continuation& from, Continuation& to);

inline constexpr size_t kFiberStackBytes = 128 << 10;

// A stack that `run` is called on when something continues at it; `run` never returns, and hands
// the CPU on when it has nothing to do. Never destroyed. Belongs to one system thread at a time.
class Fiber {
 public:
  explicit Fiber(void (*run)(Fiber&));
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  Continuation& continuation() { return continuation_; }
  // Whether `address` is in the page below its stack: the stack was too small.
  bool Overflowed(const void* address) const;

 private:
  static void Main(unsigned int high, unsigned int low);

  void (*run_)(Fiber&);
  char* stack_;
  Continuation continuation_;
};

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_FIBER_H_
