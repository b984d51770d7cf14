// Slices in order: a few inside the list itself, more in memory that may be lent by a pool.
#ifndef EXPERTMESH_COMMON_WIRE_SLICE_LIST_H_
#define EXPERTMESH_COMMON_WIRE_SLICE_LIST_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "absl/types/span.h"
#include "common/base/check.h"
#include "common/tensor/buffer_pool.h"

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

class SliceList {
 public:
  SliceList() = default;
  ~SliceList() { Clear(); }
  SliceList(const SliceList& other) { Append(other.span()); }
  SliceList(SliceList&& other) noexcept { TakeFrom(other); }
  SliceList& operator=(const SliceList& other) {
    if (this != &other) {
      Clear();
      Append(other.span());
    }
    return *this;
  }
  SliceList& operator=(SliceList&& other) noexcept {
    if (this != &other) {
      Clear();
      TakeFrom(other);
    }
    return *this;
  }

  absl::Span<const Slice> span() const { return {slices(), size_}; }

  void Add(Slice slice) {
    if (size_ == capacity_) {
      Reserve(2 * size_, nullptr);
    }
    slices()[size_] = std::move(slice);
    ++size_;
  }

  // Room for `count` slices in all, from `pool` if that is not null.
  void Reserve(size_t count, BufferPool* pool) {
    if (count <= capacity_) {
      return;
    }
    std::shared_ptr<AlignedBuffer> buffer = TakeBuffer(pool, count * sizeof(Slice));
    Slice* const places = buffer->as<Slice>();
    for (size_t i = 0; i < count; ++i) {
      new (places + i) Slice(i < size_ ? std::move(slices()[i]) : Slice());
    }
    DestroyLarge();
    large_ = std::move(buffer);
    capacity_ = count;
  }

  void Clear() {
    DestroyLarge();
    large_.reset();
    std::fill_n(few_.begin(), std::min(size_, few_.size()), Slice());
    size_ = 0;
    capacity_ = few_.size();
  }

 private:
  static constexpr size_t kFew = 4;

  Slice* slices() { return large_ == nullptr ? few_.data() : large_->as<Slice>(); }
  const Slice* slices() const {
    return large_ == nullptr ? few_.data() : std::as_const(*large_).as<Slice>();
  }

  void Append(absl::Span<const Slice> slices) {
    Reserve(size_ + slices.size(), nullptr);
    for (const Slice& slice : slices) {
      Add(slice);
    }
  }

  // *this is empty.
  void TakeFrom(SliceList& other) {
    few_ = std::exchange(other.few_, {});
    large_ = std::move(other.large_);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, kFew);
  }

  void DestroyLarge() {
    if (large_ != nullptr) {
      std::destroy_n(large_->as<Slice>(), capacity_);
    }
  }

  std::array<Slice, kFew> few_;
  std::shared_ptr<AlignedBuffer> large_;  // Slices in all of its places, in place of few_.
  size_t size_ = 0;
  size_t capacity_ = kFew;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_SLICE_LIST_H_
