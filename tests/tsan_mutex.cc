// Teaches ThreadSanitizer about absl::Mutex, CondVar, Notification and BlockingCounter, and what
// not to judge of gRPC.
//
// Debian's Abseil is not instrumented, so without this every mutex-guarded variable looks like a
// race. The functions here take the place of Abseil's in every program of a ThreadSanitizer build:
// each calls the real one and tells the order that it establishes. Conditions are evaluated by
// whichever thread unlocks, with the mutex held but after its release has been told; what they read
// is therefore ignored.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}

// Defaults of every program of a ThreadSanitizer build.
extern "C" const char* __tsan_default_options() { return "ignore_noninstrumented_modules=1"; }

// gRPC's headers put code into our programs that gRPC runs under synchronisation of its own, inside
// libgrpc++: at the end of an operation, before the completion queue returns its tag, and in its
// callback API, which serves health checks. Our code is never below these frames.
extern "C" const char* __tsan_default_suppressions() {
  return "race:grpc::CompletionQueue::AsyncNextInternal\n"
         "race:grpc::internal::Callback\n";
}

#define EXPERTMESH_STRING_INNER(text) #text
#define EXPERTMESH_STRING(text) EXPERTMESH_STRING_INNER(text)

namespace {

class Ignore {
 public:
  Ignore() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Ignore() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};

// The function that the one here hides. `member` is what its mangled name has after Abseil's
// namespace, which differs between distributions.
void* Hidden(const char* member) {
  constexpr std::string_view kNamespace = EXPERTMESH_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string_view name(member);
  const bool is_const = name.front() == 'K';
  std::string symbol = is_const ? "_ZNK4absl" : "_ZN4absl";
  symbol += std::to_string(kNamespace.size());
  symbol += kNamespace;
  symbol += name.substr(is_const ? 1 : 0);
  void* const function = dlsym(RTLD_NEXT, symbol.c_str());
  if (function == nullptr) {
    std::abort();
  }
  return function;
}

template <typename Function>
Function Real(void** cache, const char* member) {
  void* function = __atomic_load_n(cache, __ATOMIC_ACQUIRE);
  if (function == nullptr) {
    function = Hidden(member);
    __atomic_store_n(cache, function, __ATOMIC_RELEASE);
  }
  return reinterpret_cast<Function>(function);
}

}  // namespace

// A member function of a class without virtual functions is called like a function that takes the
// object first (Itanium C++ ABI).
#define REAL(member, result, ...) \
  static void* cache = nullptr;   \
  const Ignore ignore;            \
  const auto real = Real<result (*)(__VA_ARGS__)>(&cache, member)

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  {
    REAL("5Mutex4LockEv", void, Mutex*);
    real(this);
  }
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  __tsan_release(this);
  REAL("5Mutex6UnlockEv", void, Mutex*);
  real(this);
}

bool Mutex::TryLock() {
  bool locked = false;
  {
    REAL("5Mutex7TryLockEv", bool, Mutex*);
    locked = real(this);
  }
  __tsan_acquire(this);
  return locked;
}

void Mutex::ReaderLock() {
  {
    REAL("5Mutex10ReaderLockEv", void, Mutex*);
    real(this);
  }
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  __tsan_release(this);
  REAL("5Mutex12ReaderUnlockEv", void, Mutex*);
  real(this);
}

void Mutex::LockWhen(const Condition& condition) {
  {
    REAL("5Mutex8LockWhenERKNS0_9ConditionE", void, Mutex*, const Condition&);
    real(this, condition);
  }
  __tsan_acquire(this);
}

bool Mutex::LockWhenWithTimeout(const Condition& condition, absl::Duration timeout) {
  bool reached = false;
  {
    REAL("5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE", bool, Mutex*,
         const Condition&, absl::Duration);
    reached = real(this, condition, timeout);
  }
  __tsan_acquire(this);
  return reached;
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, absl::Time deadline) {
  bool reached = false;
  {
    REAL("5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE", bool, Mutex*, const Condition&,
         absl::Time);
    reached = real(this, condition, deadline);
  }
  __tsan_acquire(this);
  return reached;
}

void Mutex::Await(const Condition& condition) {
  __tsan_release(this);
  {
    REAL("5Mutex5AwaitERKNS0_9ConditionE", void, Mutex*, const Condition&);
    real(this, condition);
  }
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, absl::Duration timeout) {
  __tsan_release(this);
  bool reached = false;
  {
    REAL("5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE", bool, Mutex*, const Condition&,
         absl::Duration);
    reached = real(this, condition, timeout);
  }
  __tsan_acquire(this);
  return reached;
}

bool Mutex::AwaitWithDeadline(const Condition& condition, absl::Time deadline) {
  __tsan_release(this);
  bool reached = false;
  {
    REAL("5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE", bool, Mutex*, const Condition&,
         absl::Time);
    reached = real(this, condition, deadline);
  }
  __tsan_acquire(this);
  return reached;
}

void CondVar::Wait(Mutex* mutex) {
  __tsan_release(mutex);
  {
    REAL("7CondVar4WaitEPNS0_5MutexE", void, CondVar*, Mutex*);
    real(this, mutex);
  }
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, absl::Duration timeout) {
  __tsan_release(mutex);
  bool expired = false;
  {
    REAL("7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE", bool, CondVar*, Mutex*,
         absl::Duration);
    expired = real(this, mutex, timeout);
  }
  __tsan_acquire(mutex);
  return expired;
}

bool CondVar::WaitWithDeadline(Mutex* mutex, absl::Time deadline) {
  __tsan_release(mutex);
  bool expired = false;
  {
    REAL("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE", bool, CondVar*, Mutex*, absl::Time);
    expired = real(this, mutex, deadline);
  }
  __tsan_acquire(mutex);
  return expired;
}

void Notification::Notify() {
  __tsan_release(this);
  REAL("12Notification6NotifyEv", void, Notification*);
  real(this);
}

void Notification::WaitForNotification() const {
  {
    REAL("K12Notification19WaitForNotificationEv", void, const Notification*);
    real(this);
  }
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(absl::Duration timeout) const {
  bool notified = false;
  {
    REAL("K12Notification30WaitForNotificationWithTimeoutENS0_8DurationE", bool,
         const Notification*, absl::Duration);
    notified = real(this, timeout);
  }
  __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

bool BlockingCounter::DecrementCount() {
  __tsan_release(this);
  REAL("15BlockingCounter14DecrementCountEv", bool, BlockingCounter*);
  return real(this);
}

void BlockingCounter::Wait() {
  {
    REAL("15BlockingCounter4WaitEv", void, BlockingCounter*);
    real(this);
  }
  __tsan_acquire(this);
}

ABSL_NAMESPACE_END
}  // namespace absl
