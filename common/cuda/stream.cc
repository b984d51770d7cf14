#include "common/cuda/stream.h"

#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"

namespace expertmesh::cuda {

Stream& Stream::operator=(Stream&& other) noexcept {
  if (this != &other) {
    Destroy();
    stream_ = std::exchange(other.stream_, nullptr);
  }
  return *this;
}

absl::StatusOr<Stream> Stream::Create(int device) {
  RETURN_IF_ERROR(ToStatus(cudaSetDevice(device), "cudaSetDevice"));
  Stream stream;
  RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream.stream_, cudaStreamNonBlocking),
                           "cudaStreamCreateWithFlags"));
  return stream;
}

absl::Status Stream::Synchronize() const {
  return ToStatus(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

void Stream::Destroy() {
  if (stream_ != nullptr) {
    (void)cudaStreamDestroy(stream_);
    stream_ = nullptr;
  }
}

Event& Event::operator=(Event&& other) noexcept {
  if (this != &other) {
    Destroy();
    event_ = std::exchange(other.event_, nullptr);
  }
  return *this;
}

absl::StatusOr<Event> Event::Create(int device) {
  RETURN_IF_ERROR(ToStatus(cudaSetDevice(device), "cudaSetDevice"));
  Event event;
  RETURN_IF_ERROR(ToStatus(
      cudaEventCreateWithFlags(&event.event_, cudaEventDisableTiming | cudaEventBlockingSync),
      "cudaEventCreateWithFlags"));
  return event;
}

absl::Status Event::Record(const Stream& stream) const {
  return ToStatus(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
}

absl::Status Event::Synchronize() const {
  return ToStatus(cudaEventSynchronize(event_), "cudaEventSynchronize");
}

void Event::Destroy() {
  if (event_ != nullptr) {
    (void)cudaEventDestroy(event_);
    event_ = nullptr;
  }
}

}  // namespace expertmesh::cuda
