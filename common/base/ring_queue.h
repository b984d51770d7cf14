// A queue that keeps its memory: once it has been as long as it gets, nothing is allocated.
#ifndef EXPERTMESH_COMMON_BASE_RING_QUEUE_H_
#define EXPERTMESH_COMMON_BASE_RING_QUEUE_H_

#include <cstddef>
#include <utility>
#include <vector>

namespace expertmesh {

// T() is what an empty place holds, and must own nothing. Not thread-safe.
template <typename T>
class RingQueue {
 public:
  // A queue that becomes empty keeps up to so many places; with more it frees all of them.
  static constexpr size_t kMostKept = 1024;

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }

  // The oldest, and the i-th oldest.
  T& front() { return (*this)[0]; }
  const T& front() const { return (*this)[0]; }
  T& operator[](size_t i) { return places_[(first_ + i) & (places_.size() - 1)]; }
  const T& operator[](size_t i) const { return places_[(first_ + i) & (places_.size() - 1)]; }

  void push_back(T value) {
    if (size_ == places_.size()) {
      Grow();
    }
    places_[(first_ + size_) & (places_.size() - 1)] = std::move(value);
    ++size_;
  }

  // Takes the oldest out.
  T Pop() {
    T value = std::exchange(front(), T());
    first_ = (first_ + 1) & (places_.size() - 1);
    --size_;
    if (size_ == 0 && places_.size() > kMostKept) {
      std::vector<T>().swap(places_);
      first_ = 0;
    }
    return value;
  }

 private:
  void Grow() {
    std::vector<T> places(places_.empty() ? 8 : 2 * places_.size());
    for (size_t i = 0; i < size_; ++i) {
      places[i] = std::move((*this)[i]);
    }
    places_.swap(places);
    first_ = 0;
  }

  std::vector<T> places_;  // A power of two, or none.
  size_t first_ = 0;
  size_t size_ = 0;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_RING_QUEUE_H_
