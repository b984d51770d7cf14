// Runs callbacks from any threads one after the other.
#ifndef EXPERTMESH_COMMON_TRANSPORT_CALLBACK_SERIALIZER_H_
#define EXPERTMESH_COMMON_TRANSPORT_CALLBACK_SERIALIZER_H_

#include <deque>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace expertmesh {

// Thread-safe. No lock is held while a callback runs.
class CallbackSerializer {
 public:
  // Runs `callback` on this thread, after those before it; when another thread is running one,
  // leaves it to that thread. Callbacks may call Run(): it will be their successor.
  void Run(std::function<void()> callback);

  // Drops what has not started and waits for the one that is running, which must not be the caller.
  // Run() does nothing afterwards.
  void Close();

 private:
  absl::Mutex mutex_;
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TRANSPORT_CALLBACK_SERIALIZER_H_
