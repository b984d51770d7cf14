// Completion queues and the threads that poll them: what GrpcClient and GrpcServer run on.
//
// One thread per queue, and every call stays on the queue it started on; so what happens to one
// call happens one after the other. (gRPC's callback API would stall for up to 100 ms after a
// second of silence.)
//
// Calls in and calls out may share a runtime, and no thread of gRPC's own polls: all pollers of a
// process wait on one set of sockets and take turns at it, so that every further one costs a
// change of threads for most of what arrives.
#ifndef EXPERTMESH_COMMON_NET_GRPC_RUNTIME_H_
#define EXPERTMESH_COMMON_NET_GRPC_RUNTIME_H_

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/base/check.h"
#include "common/net/pulse.h"

namespace expertmesh::net {

// What a completion queue hands back when an operation is done. Pass tags to gRPC as Tag*.
class Tag {
 public:
  // `ok` as gRPC defines it for the operation.
  virtual void Proceed(bool ok) = 0;

 protected:
  ~Tag() = default;
};

#ifdef __SANITIZE_THREAD__
// ThreadSanitizer cannot see into gRPC, so it is told here that what was done before an operation
// was started comes before what is done when it has completed.
inline std::atomic<int> operations_started{0};
inline void BeforeOperation() { operations_started.fetch_add(1, std::memory_order_release); }
inline void AfterOperation() { operations_started.load(std::memory_order_acquire); }
#else
inline void BeforeOperation() {}
inline void AfterOperation() {}
#endif

// A tag for an operation of `Owner`, to be used again and again, one operation at a time. Keeps its
// owner alive from Arm() until Proceed() or Disarm().
template <typename Owner>
class OpTag final : public Tag {
 public:
  using Method = void (Owner::*)(bool ok);
  explicit OpTag(Method method) : method_(method) {}

  void* Arm(std::shared_ptr<Owner> owner) {
    EXPERTMESH_CHECK(owner_ == nullptr);
    owner_ = std::move(owner);
    BeforeOperation();
    return static_cast<Tag*>(this);
  }

  // For operations that gRPC never completes.
  void Disarm() { owner_.reset(); }

  void Proceed(bool ok) override {
    const std::shared_ptr<Owner> owner = std::exchange(owner_, nullptr);
    EXPERTMESH_CHECK(owner != nullptr);
    ((*owner).*method_)(ok);
  }

 private:
  const Method method_;
  std::shared_ptr<Owner> owner_;
};

// Polls one queue on a thread of its own.
class QueuePoller {
 public:
  // `queue` must outlive the poller.
  explicit QueuePoller(grpc::CompletionQueue* queue);
  // Shuts the queue down and returns when it is empty. No operation may be started afterwards.
  ~QueuePoller();
  QueuePoller(const QueuePoller&) = delete;
  QueuePoller& operator=(const QueuePoller&) = delete;

  // What the thread has used.
  absl::Duration CpuTime();

 private:
  grpc::CompletionQueue* const queue_;
  std::thread thread_;
};

// Asks the thread of one queue for a beat again and again, behind whatever else has completed
// there.
class QueuePulse final : public Tag {
 public:
  // `queue` must outlive the pulse, and be polled as long.
  explicit QueuePulse(grpc::CompletionQueue* queue);
  ~QueuePulse();
  QueuePulse(const QueuePulse&) = delete;
  QueuePulse& operator=(const QueuePulse&) = delete;

  void Proceed(bool ok) override;
  const Pulse& pulse() const { return pulse_; }

 private:
  void Arm() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::CompletionQueue* const queue_;
  Pulse pulse_{Clock::Real()};
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Alarm alarm_ ABSL_GUARDED_BY(mutex_);
  absl::Notification over_;
};

// A pause of the thread of a queue.
struct Stall {
  uint64_t id = 0;          // The same for as long as the thread does not come round.
  absl::Duration cpu = {};  // That the thread has used, ever.
};

// 1 up to 4 cores, then a quarter of the cores, at most 4.
int DefaultPollers();

// A call that has operations on a queue, or may start some.
class LiveCall {
 public:
  virtual ~LiveCall() = default;
  // Ends the call soon, as if by `why`. Any thread; no effect once it has ended.
  virtual void Abort(const absl::Status& why) = 0;
  // Asks the call to end as soon as what it has begun is done.
  virtual void Drain(const absl::Status& why) = 0;
  // The peer of a call that a server has accepted, as ServerContext names it; else empty.
  virtual std::string peer() const { return ""; }
};

// The calls of one runtime or server: a queue may only be shut down when there is none.
// Thread-safe.
class LiveCalls {
 public:
  // False after Stop(): the call must not start any operation.
  [[nodiscard]] bool Add(const std::shared_ptr<LiveCall>& call);
  // When the call will start no more operations.
  void Remove(const LiveCall* call);
  // Refuses further calls; returns those that there are.
  std::vector<std::shared_ptr<LiveCall>> Stop();
  bool stopped() const;
  // Each peer that has an accepted call under way.
  absl::flat_hash_set<std::string> Peers() const;
  // Waits until there are none; false when `timeout` has passed.
  bool AwaitNone(absl::Duration timeout) const;

 private:
  std::vector<std::shared_ptr<LiveCall>> All() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<const LiveCall*, std::weak_ptr<LiveCall>> calls_ ABSL_GUARDED_BY(mutex_);
};

// Queues for clients, and for one server that shares them. Thread-safe.
class GrpcRuntime {
 public:
  // `pollers`: queues, each with a thread; 0: DefaultPollers().
  explicit GrpcRuntime(int pollers = 0);
  // Cancels all calls and waits until their callbacks have run. Not from such a callback.
  ~GrpcRuntime();

  // For implementations of calls: the queue for a new one, and the set it must join.
  grpc::CompletionQueue* NextQueue();
  LiveCalls& calls() { return calls_; }

  // For GrpcServer: a builder that knows the queues, good for one server, and the queues. The
  // server must have ended before the runtime.
  grpc::ServerBuilder& server_builder() { return server_builder_; }
  const std::vector<std::unique_ptr<grpc::ServerCompletionQueue>>& queues() const {
    return queues_;
  }
  // Returns when whatever had completed on the queues before has been handed out, and `also`, if
  // there is one, has been called by the thread of each. Not from a callback.
  void Flush(const std::function<void()>& also = nullptr);

  // Since when, on Clock::Real(), every queue has been polled without a pause; now during one. What
  // was not heard before that may yet lie unread in a socket.
  absl::Time AwakeSince() const;

  // The pause of the first queue that is not polled now.
  std::optional<Stall> CurrentStall() const;

 private:
  LiveCalls calls_;
  std::atomic<size_t> next_{0};
  grpc::ServerBuilder server_builder_;
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues_;
  std::vector<std::unique_ptr<QueuePoller>> pollers_;  // After queues_: gone before them.
  std::vector<std::unique_ptr<QueuePulse>> pulses_;    // Likewise, before pollers_.
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_RUNTIME_H_
