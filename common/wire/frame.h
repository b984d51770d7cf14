// A frame: the bytes of one message as a list of shared, immutable slices, so that tensor bytes
// pass through the process without being copied.
#ifndef EXPERTMESH_COMMON_WIRE_FRAME_H_
#define EXPERTMESH_COMMON_WIRE_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/types/span.h"
#include "common/wire/slice_list.h"

namespace expertmesh {

// Slices in order. Boundaries and alignment mean nothing.
class Frame {
 public:
  Frame() = default;
  Frame(const Frame&) = default;
  Frame& operator=(const Frame&) = default;
  // Leave an empty frame behind.
  Frame(Frame&& other) noexcept
      : slices_(std::move(other.slices_)), size_(std::exchange(other.size_, 0)) {}
  Frame& operator=(Frame&& other) noexcept {
    slices_ = std::move(other.slices_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  explicit Frame(std::string bytes) { Append(Slice::FromString(std::move(bytes))); }

  // Empty slices are left out.
  void Append(Slice slice) {
    if (slice.size() > 0) {
      size_ += slice.size();
      slices_.Add(std::move(slice));
    }
  }
  void Append(const Frame& frame) {
    for (const Slice& slice : frame.slices()) {
      Append(slice);
    }
  }

  // Room in the list for `slices` in all, from `pool` if that is not null.
  void Reserve(size_t slices, BufferPool* pool) { slices_.Reserve(slices, pool); }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  absl::Span<const Slice> slices() const { return slices_.span(); }

  // `count` bytes from `offset`, sharing owners.
  Frame Sub(size_t offset, size_t count) const;
  // The same at the end of `target`.
  void AppendTo(size_t offset, size_t count, Frame* target) const;

  // Copies `count` bytes from `offset` to `target`.
  void CopyTo(size_t offset, size_t count, void* target) const;

  // All bytes, copied.
  std::string Flatten() const;

 private:
  SliceList slices_;
  size_t size_ = 0;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_FRAME_H_
