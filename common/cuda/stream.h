// Queues of work of a device, and marks in them.
#ifndef EXPERTMESH_COMMON_CUDA_STREAM_H_
#define EXPERTMESH_COMMON_CUDA_STREAM_H_

#include <cuda_runtime_api.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace expertmesh::cuda {

// Movable, not copyable. Its work has ended before it does. Thread-safe but for moves.
class Stream {
 public:
  Stream() = default;
  ~Stream() { Destroy(); }
  Stream(Stream&& other) noexcept { *this = std::move(other); }
  Stream& operator=(Stream&& other) noexcept;

  // A stream of `device` that does not wait for the default stream.
  static absl::StatusOr<Stream> Create(int device);

  cudaStream_t get() const { return stream_; }
  // Waits until all its work is done. An error may be that of any work before.
  absl::Status Synchronize() const;

 private:
  void Destroy();

  cudaStream_t stream_ = nullptr;
};

// Movable, not copyable. Thread-safe but for moves.
class Event {
 public:
  Event() = default;
  ~Event() { Destroy(); }
  Event(Event&& other) noexcept { *this = std::move(other); }
  Event& operator=(Event&& other) noexcept;

  // An event of `device` whose waiters sleep.
  static absl::StatusOr<Event> Create(int device);

  absl::Status Record(const Stream& stream) const;
  // Waits until the work before the last Record() is done; at once when there was none.
  absl::Status Synchronize() const;

 private:
  void Destroy();

  cudaEvent_t event_ = nullptr;
};

}  // namespace expertmesh::cuda

#endif  // EXPERTMESH_COMMON_CUDA_STREAM_H_
