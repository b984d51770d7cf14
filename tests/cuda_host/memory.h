// Device memory and pinned memory. Each allocation is a mapping of its own between pages that
// cannot be touched, its end as near to the last one as its alignment lets it be. Device memory
// cannot be touched at all but by the thread that executes queued work, and what is freed never
// again.
//
// Pages are opened when they are touched first, by a handler of SIGSEGV, and closed when the work
// ends, so that work pays for what it touches and not for all that there is.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_MEMORY_H_
#define EXPERTMESH_TESTS_CUDA_HOST_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace expertmesh::cuda_host {

// Fresh memory consists of such bytes: NaN in every type of floating point, -1 as an index.
inline constexpr int kPoison = 0xff;

size_t PageBytes();
constexpr size_t RoundUp(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Whether a kernel may be given `pointer`: it points into live device or pinned memory, or right
// behind it. Thread-safe.
bool IsDeviceAccessible(const void* pointer);

// A page that tracked work wrote to, and what it held before.
struct WrittenPage {
  char* page;
  std::unique_ptr<char[]> before;
};

// Thread-safe, but for what is said to be for the executing thread.
class Memory {
 public:
  enum class Kind { kNeither, kDevice, kPinned };
  struct Range {
    Kind kind = Kind::kNeither;
    char* data = nullptr;
    size_t bytes = 0;
    // Bytes from `pointer`, which it was looked up by, to the end.
    size_t left = 0;
  };

  static Memory& Get();

  void* Allocate(Kind kind, size_t bytes);
  // Dies if `pointer` is not what Allocate returned for this kind, or was freed.
  void Free(Kind kind, void* pointer);
  // The live allocation that `pointer` points into, or right behind.
  Range Find(const void* pointer);
  size_t DeviceBytes();
  std::vector<std::string> Leaks();
  void Reset();

  // For the executing thread: between these calls it may touch device memory. `work` says what it
  // does, and must live until then.
  void BeginAccess(const std::string& work);
  void EndAccess();

  // For the executing thread, while it may touch device memory: from Track on, each page that is
  // written is kept as it was before; the list ends with Untrack.
  void Track();
  const std::vector<WrittenPage>& written() const { return written_; }
  void Untrack();

  // For the executing thread, after each piece of work. Dies if something was written beside
  // allocations that are open.
  void EndWork();

 private:
  enum class Access { kNone, kRead, kWrite };
  struct Allocation {
    Kind kind;
    char* map;
    size_t map_bytes;
    char* pages;  // Between the two guards.
    size_t page_bytes;
    char* data;
    size_t bytes;
    uint64_t number;
    std::vector<void*> made_by;
    bool freed = false;
    bool poisoned = false;
    Access access = Access::kNone;
  };

  Memory();
  static void OnFault(int signal, void* info, void* context);
  // Opens what is touched; dies if it must not be. Returns false if `address` is not ours.
  bool Touch(char* address);
  void Open(Allocation& allocation, char* address);
  void CheckMargins();
  void Close();
  static std::string Describe(const Allocation& allocation);
  [[noreturn]] static void DieOf(const Allocation& allocation, const char* address,
                                 const std::string& what);
  static std::string Work();

  absl::Mutex mutex_;
  std::map<const char*, std::unique_ptr<Allocation>> allocations_ ABSL_GUARDED_BY(mutex_);
  size_t device_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t made_ ABSL_GUARDED_BY(mutex_) = 0;

  // The executing thread's.
  std::vector<Allocation*> open_;
  std::vector<WrittenPage> written_;
  bool tracking_ = false;
};

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_MEMORY_H_
