// Runs callbacks from any threads one after the other.
#ifndef EXPERTMESH_COMMON_TRANSPORT_CALLBACK_SERIALIZER_H_
#define EXPERTMESH_COMMON_TRANSPORT_CALLBACK_SERIALIZER_H_

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "common/base/ring_queue.h"

namespace expertmesh {

// Thread-safe. No lock is held while a callback runs.
class CallbackSerializer {
 public:
  // Runs `callback` on this thread, after those before it; when another thread is running one,
  // leaves it to that thread. Callbacks may call Run(): it will be their successor.
  template <typename Callback>
  void Run(Callback callback) {
    if (Begin()) {
      callback();  // As it is: one that has to wait may take memory.
    } else if (!Wait(std::move(callback))) {
      return;
    }
    RunWaiting();
  }

  // Drops what has not started and waits for the one that is running, which must not be the caller.
  // Run() does nothing afterwards.
  void Close();

 private:
  // True when nothing is running, and the caller now is.
  bool Begin();
  // True when nothing is running any more, and the caller now is; else another thread runs it.
  bool Wait(absl::AnyInvocable<void()> callback);
  void RunWaiting();

  absl::Mutex mutex_;
  RingQueue<absl::AnyInvocable<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TRANSPORT_CALLBACK_SERIALIZER_H_
