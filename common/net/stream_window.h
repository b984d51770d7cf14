// How far a stream of a server may run ahead of what its client reads.
#ifndef EXPERTMESH_COMMON_NET_STREAM_WINDOW_H_
#define EXPERTMESH_COMMON_NET_STREAM_WINDOW_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "common/net/buffer_budget.h"

namespace expertmesh::net {

// Counts the answers of one stream that wait to be sent and, where each request is answered by one
// frame, the requests that will become such; their answers are taken to be about as large. While
// the window is full no further request should be read: HTTP/2 then holds the client back.
//
// The window begins small and grows by what the client reads down to the last answer: one that
// keeps up is never held back, one that does not never gets much. Not thread-safe.
class StreamWindow {
 public:
  // `most`: bytes of the largest window. Shares `budget`: a call may outlive its server.
  StreamWindow(std::shared_ptr<BufferBudget> budget, size_t most, bool answers_each)
      : budget_(std::move(budget)),
        most_(most),
        answers_each_(answers_each),
        window_(answers_each ? std::min(kFirst, most) : most / 2) {}
  ~StreamWindow() { budget_->Remove(open_bytes_ + queued_); }
  StreamWindow(const StreamWindow&) = delete;
  StreamWindow& operator=(const StreamWindow&) = delete;

  void Received(size_t bytes) {
    if (answers_each_) {
      ++open_;
      open_bytes_ += bytes;
      budget_->Add(bytes);
    }
  }

  // A request is answered, by whatever was or could not be queued.
  void Answered() {
    if (open_ > 0) {
      const size_t bytes = open_bytes_ / open_--;
      open_bytes_ -= bytes;
      budget_->Remove(bytes);
    }
  }

  void Queued(size_t bytes) {
    queued_ += bytes;
    budget_->Add(bytes);
  }

  // `read_all`: the client has read whatever was queued.
  void Sent(size_t bytes, bool read_all) {
    queued_ -= bytes;
    budget_->Remove(bytes);
    read_ += bytes;
    if (read_all && answers_each_) {
      window_ = std::min(most_, window_ + read_);
      read_ = 0;
    }
  }

  // All that was queued but so many bytes will not be sent.
  void Dropped(size_t left) {
    budget_->Remove(queued_ - left);
    queued_ = left;
  }

  // At least one request is read whatever its size.
  bool IsFull() const { return used() > 0 && used() >= Limit(); }
  // So much less than full that reading should go on.
  bool HasRoom() const { return used() <= Limit() / 2; }
  // More is queued than a client may leave unread.
  bool IsOver() const {
    return answers_each_ ? budget_->full() && queued_ > budget_->limit() / 8 : queued_ >= most_;
  }
  // Enough that it may be the client that does not read, and not the network that is slow.
  bool HoldsMuch() const { return queued_ >= kMuch; }
  size_t queued() const { return queued_; }

 private:
  static constexpr size_t kFirst = size_t{8} << 20;
  static constexpr size_t kLeast = size_t{256} << 10;
  static constexpr size_t kMuch = size_t{64} << 10;

  size_t used() const { return open_bytes_ + queued_; }
  // The others' need counts for this stream's own part, too: it is a share of what is left.
  size_t Limit() const { return std::min(window_, std::max(kLeast, budget_->Share())); }

  const std::shared_ptr<BufferBudget> budget_;
  const size_t most_;
  const bool answers_each_;
  size_t window_;
  size_t open_ = 0;  // Requests.
  size_t open_bytes_ = 0;
  size_t queued_ = 0;
  size_t read_ = 0;  // Since the window grew last.
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_STREAM_WINDOW_H_
