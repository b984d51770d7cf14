// Frames that wait for their turn on one stream.
#ifndef EXPERTMESH_COMMON_NET_SEND_QUEUE_H_
#define EXPERTMESH_COMMON_NET_SEND_QUEUE_H_

#include <grpcpp/impl/codegen/call_op_set.h>

#include <cstddef>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "common/base/ring_queue.h"
#include "common/wire/frame.h"

namespace expertmesh::net {

// Not thread-safe. The frame being written counts until Written().
class SendQueue {
 public:
  size_t bytes() const { return bytes_; }
  bool empty() const { return frames_.empty() && latest_ == nullptr; }

  void Push(Frame frame) {
    bytes_ += frame.size();
    frames_.push_back(std::move(frame));
  }

  using LatestFrame = absl::AnyInvocable<Frame()>;

  // After all others; dropped when there is one. It is not among the bytes.
  void SetLatest(LatestFrame make) {
    if (latest_ == nullptr) {
      latest_ = std::move(make);
    }
  }
  LatestFrame TakeLatest() { return std::exchange(latest_, nullptr); }

  struct Next {
    Frame frame;
    // Makes the frame, when not null.
    LatestFrame make;
    grpc::WriteOptions options;
  };

  // The queue must not be empty.
  Next Pop() {
    Next next;
    if (frames_.empty()) {
      next.make = TakeLatest();
      return next;
    }
    next.frame = frames_.Pop();
    writing_bytes_ = next.frame.size();
    // Small frames that follow each other share a system call; the last one flushes.
    if (!frames_.empty() && next.frame.size() < kCoalesceBelow) {
      next.options.set_buffer_hint();
    }
    return next;
  }

  // Returns the bytes of the frame that was being written.
  size_t Written() {
    bytes_ -= writing_bytes_;
    return std::exchange(writing_bytes_, 0);
  }

  // Drops frames that wait; not what is being written. Returns it, to be destroyed without locks.
  RingQueue<Frame> Clear() {
    bytes_ = writing_bytes_;
    RingQueue<Frame> dropped;
    std::swap(dropped, frames_);
    return dropped;
  }

 private:
  static constexpr size_t kCoalesceBelow = 16384;

  RingQueue<Frame> frames_;
  LatestFrame latest_;
  size_t bytes_ = 0;
  size_t writing_bytes_ = 0;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_SEND_QUEUE_H_
