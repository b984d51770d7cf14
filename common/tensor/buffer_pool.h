// Memory for matrices and messages that is used again.
#ifndef EXPERTMESH_COMMON_TENSOR_BUFFER_POOL_H_
#define EXPERTMESH_COMMON_TENSOR_BUFFER_POOL_H_

#include <algorithm>
#include <cstddef>
#include <memory>

#include "common/base/shared_pool.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh {

// Thread-safe. A buffer comes back when the last reference to it goes, which may be later than the
// pool: it is freed then.
class BufferPool {
 public:
  // Applies to the buffers that are not in use.
  static constexpr PoolLimits kLimits{.objects = 256, .bytes = size_t{64} << 20};

  // Contents are undefined. Leaves buffers more than twice as large as needed to larger requests.
  std::shared_ptr<AlignedBuffer> Take(size_t size) {
    std::shared_ptr<Buffer> buffer = pool_.TakeWhich([size](const Buffer& candidate) {
      return size <= candidate.capacity() && candidate.capacity() <= 2 * std::max(size, kSmall);
    });
    if (buffer->capacity() < size) {
      buffer->Resize(std::max(size + size / 8, kSmall));  // For the next, a little larger one.
    }
    buffer->Resize(size);
    return buffer;
  }

  // Frees the buffers that are not in use.
  void Shed() { pool_.Shed(); }

  size_t bytes() const { return pool_.bytes(); }

 private:
  static constexpr size_t kSmall = 1024;

  struct Buffer final : AlignedBuffer {
    void Recycle() {}
    size_t MemoryBytes() const { return capacity(); }
  };

  SharedPool<Buffer> pool_{kLimits};
};

// From `pool`, or of its own when that is null.
inline std::shared_ptr<AlignedBuffer> TakeBuffer(BufferPool* pool, size_t size) {
  return pool == nullptr ? std::make_shared<AlignedBuffer>(size) : pool->Take(size);
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_BUFFER_POOL_H_
