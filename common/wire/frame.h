// A frame: the bytes of one message as a list of shared, immutable slices, so that tensor bytes
// pass through the process without being copied.
#ifndef EXPERTMESH_COMMON_WIRE_FRAME_H_
#define EXPERTMESH_COMMON_WIRE_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "common/base/check.h"

namespace expertmesh {

// Bytes kept alive by an owner. Copying a slice shares them. Immutable, hence thread-safe.
class Slice {
 public:
  Slice() = default;
  // Bytes that `owner` keeps alive. They must not change while any slice of them exists.
  Slice(const void* data, size_t size, std::shared_ptr<const void> owner)
      : data_(static_cast<const uint8_t*>(data)), size_(size), owner_(std::move(owner)) {}

  static Slice FromString(std::string bytes) {
    auto owner = std::make_shared<const std::string>(std::move(bytes));
    const void* data = owner->data();
    const size_t size = owner->size();
    return Slice(data, size, std::move(owner));
  }

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

  // `count` bytes from `offset`, sharing the owner.
  Slice Sub(size_t offset, size_t count) const {
    EXPERTMESH_CHECK(offset <= size_ && count <= size_ - offset);
    return Slice(data_ + offset, count, owner_);
  }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  std::shared_ptr<const void> owner_;
};

// Slices in order. Boundaries and alignment mean nothing.
class Frame {
 public:
  Frame() = default;
  explicit Frame(std::string bytes) { Append(Slice::FromString(std::move(bytes))); }

  // Empty slices are left out.
  void Append(Slice slice) {
    if (slice.size() > 0) {
      size_ += slice.size();
      slices_.push_back(std::move(slice));
    }
  }
  void Append(const Frame& frame) {
    slices_.reserve(slices_.size() + frame.slices().size());
    for (const Slice& slice : frame.slices()) {
      Append(slice);
    }
  }

  // Drops all slices, and keeps the memory of their list.
  void Clear() {
    slices_.clear();
    size_ = 0;
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const absl::InlinedVector<Slice, 4>& slices() const { return slices_; }

  // `count` bytes from `offset`, sharing owners.
  Frame Sub(size_t offset, size_t count) const;
  // The same at the end of `target`.
  void AppendTo(size_t offset, size_t count, Frame* target) const;

  // Copies `count` bytes from `offset` to `target`.
  void CopyTo(size_t offset, size_t count, void* target) const;

  // All bytes, copied.
  std::string Flatten() const;

 private:
  absl::InlinedVector<Slice, 4> slices_;
  size_t size_ = 0;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_FRAME_H_
