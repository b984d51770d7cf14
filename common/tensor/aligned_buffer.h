// Memory for matrices: 64-byte aligned, uninitialised unless asked.
#ifndef EXPERTMESH_COMMON_TENSOR_ALIGNED_BUFFER_H_
#define EXPERTMESH_COMMON_TENSOR_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "common/base/check.h"

namespace expertmesh {

// Movable, not copyable. Not thread-safe.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;

  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) { Resize(size); }

  // Makes room for `size` bytes; contents are undefined afterwards. Memory only grows.
  void Resize(size_t size) {
    if (size > capacity_) {
      const size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
      data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, rounded)));
      EXPERTMESH_CHECK(data_ != nullptr);
      capacity_ = rounded;
    }
    size_ = size;
  }

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_.get());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_.get());
  }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }

 private:
  struct Free {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_ALIGNED_BUFFER_H_
