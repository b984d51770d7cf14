// Objects behind shared_ptr that are used again, so that taking one allocates nothing once as many
// were out before.
#ifndef EXPERTMESH_COMMON_BASE_SHARED_POOL_H_
#define EXPERTMESH_COMMON_BASE_SHARED_POOL_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"

namespace expertmesh {

// How much waits in a pool at most; what was given back longest ago goes first.
struct PoolLimits {
  size_t objects = 64;
  size_t bytes = size_t{64} << 20;
};

// T has a default constructor and
//   void Recycle()            when the last reference goes: drops all that it refers to
//   size_t MemoryBytes()      that it keeps after that; what the pool accounts for
// and must not be an enable_shared_from_this, whose weak_ptr would keep it from coming back.
//
// Thread-safe. Objects may outlive the pool: they are destroyed when they come back.
template <typename T>
class SharedPool {
 public:
  explicit SharedPool(const PoolLimits& limits = {}) : core_(std::make_shared<Core>(limits)) {}
  ~SharedPool() { core_->Shed(/*close=*/true); }
  SharedPool(const SharedPool&) = delete;
  SharedPool& operator=(const SharedPool&) = delete;

  std::shared_ptr<T> Take() {
    return TakeWhich([](const T&) { return true; });
  }

  // The one given back last of those for which `fits(object)` is true; a new one if there is none.
  template <typename Fits>
  std::shared_ptr<T> TakeWhich(const Fits& fits) {
    Entry* entry = core_->Find(fits);
    if (entry == nullptr) {
      entry = new Entry;
    }
    entry->core = core_;
    return std::shared_ptr<T>(&entry->object, &Recycle, ControlBlock<T>{entry});
  }

  // Frees what waits.
  void Shed() { core_->Shed(/*close=*/false); }

  size_t objects() const { return core_->objects(); }
  // Memory that the waiting objects keep.
  size_t bytes() const { return core_->bytes(); }

 private:
  class Core;

  // shared_ptr's own block lies beside the object, and is used again with it.
  struct Entry {
    T object;
    size_t bytes = 0;            // As accounted, while it waits.
    std::shared_ptr<Core> core;  // While it is out.
    alignas(std::max_align_t) unsigned char control[96];
  };

  // Gives the memory of `control`; once that is given back, by the last weak_ptr, so is the entry.
  template <typename Block>
  struct ControlBlock {
    using value_type = Block;
    explicit ControlBlock(Entry* of) : entry(of) {}
    template <typename Other>
    ControlBlock(const ControlBlock<Other>& other) : entry(other.entry) {}
    Block* allocate(size_t count) {
      static_assert(sizeof(Block) <= sizeof(Entry::control));
      EXPERTMESH_CHECK(count == 1);
      return reinterpret_cast<Block*>(entry->control);
    }
    void deallocate(Block*, size_t) {
      const std::shared_ptr<Core> core = std::move(entry->core);
      core->GiveBack(entry);
    }
    template <typename Other>
    bool operator==(const ControlBlock<Other>& other) const {
      return entry == other.entry;
    }
    Entry* entry;
  };

  class Core {
   public:
    explicit Core(const PoolLimits& limits) : limits_(limits) { free_.reserve(limits.objects + 1); }
    ~Core() { Shed(/*close=*/true); }

    template <typename Fits>
    Entry* Find(const Fits& fits) {
      absl::MutexLock lock(&mutex_);
      for (auto it = free_.rbegin(); it != free_.rend(); ++it) {
        Entry* const entry = *it;
        if (fits(std::as_const(entry->object))) {
          free_.erase(std::next(it).base());
          bytes_ -= entry->bytes;
          return entry;
        }
      }
      return nullptr;
    }

    void GiveBack(Entry* entry) {
      entry->bytes = entry->object.MemoryBytes();
      for (Entry* surplus = Add(entry); surplus != nullptr; surplus = OverLimits()) {
        delete surplus;  // Without the lock.
      }
    }

    // `close`: what comes back later is freed at once.
    void Shed(bool close) {
      std::vector<Entry*> free;
      free.reserve(limits_.objects + 1);
      {
        absl::MutexLock lock(&mutex_);
        closed_ = closed_ || close;
        free.swap(free_);
        bytes_ = 0;
      }
      for (Entry* const entry : free) {
        delete entry;
      }
    }

    size_t objects() const {
      absl::MutexLock lock(&mutex_);
      return free_.size();
    }
    size_t bytes() const {
      absl::MutexLock lock(&mutex_);
      return bytes_;
    }

   private:
    // What must go in its place, if anything.
    Entry* Add(Entry* entry) {
      absl::MutexLock lock(&mutex_);
      if (closed_ || entry->bytes > limits_.bytes) {
        return entry;
      }
      free_.push_back(entry);
      bytes_ += entry->bytes;
      return TakeSurplus();
    }

    Entry* OverLimits() {
      absl::MutexLock lock(&mutex_);
      return TakeSurplus();
    }

    Entry* TakeSurplus() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (free_.size() <= limits_.objects && bytes_ <= limits_.bytes) {
        return nullptr;
      }
      Entry* const oldest = free_.front();
      free_.erase(free_.begin());
      bytes_ -= oldest->bytes;
      return oldest;
    }

    const PoolLimits limits_;
    mutable absl::Mutex mutex_;
    bool closed_ ABSL_GUARDED_BY(mutex_) = false;
    std::vector<Entry*> free_ ABSL_GUARDED_BY(mutex_);  // In the order in which they came back.
    size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  };

  static void Recycle(T* object) { object->Recycle(); }

  const std::shared_ptr<Core> core_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_SHARED_POOL_H_
