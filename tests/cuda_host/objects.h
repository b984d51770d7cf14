// Streams, events, graphs and cuBLAS handles: what their opaque pointers point to, and which live.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_OBJECTS_H_
#define EXPERTMESH_TESTS_CUDA_HOST_OBJECTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "cublas_v2.h"
#include "cuda_runtime_api.h"

namespace expertmesh::cuda_host {

// A piece of queued work.
struct Work {
  std::string what;
  std::function<void()> run =
      nullptr;  // Null: there is nothing to do, as for the record of an event.
  bool is_host_function = false;
  // Not cudaSuccess: it fails with this instead.
  cudaError_t failure = cudaSuccess;
  // Pinned memory that it reads or writes, by address and bytes.
  std::vector<std::pair<const char*, size_t>> pinned = {};
  // The queue's:
  std::vector<std::shared_ptr<Work>> after = {};
  std::vector<std::shared_ptr<Work>> before = {};  // What comes after this.
  size_t missing = 0;                              // So many of `after` are not done.
  bool running = false;
  bool done = false;
};

// A piece of work in a graph, with those before it.
struct Node {
  Work work;
  std::vector<size_t> after;
};

// A capture that is under way.
struct Capture {
  std::vector<Node> nodes;
  cudaStream_t origin = nullptr;
  // For each stream that takes part, the nodes that its next one comes after.
  std::map<cudaStream_t, std::vector<size_t>> ends;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  bool valid = true;
  bool ended = false;
};

}  // namespace expertmesh::cuda_host

// All guarded by the mutex of Queue.
struct CUstream_st {
  bool blocking = false;  // Waits for the null stream, and it for this.
  std::shared_ptr<expertmesh::cuda_host::Work> last;
  std::shared_ptr<expertmesh::cuda_host::Capture> capture;
  int polls = 0;
};

struct CUevent_st {
  std::shared_ptr<expertmesh::cuda_host::Work> record;
  // Recorded in a capture: after these nodes.
  std::shared_ptr<expertmesh::cuda_host::Capture> capture;
  std::vector<size_t> nodes;
  int polls = 0;
};

struct CUgraph_st {
  std::vector<expertmesh::cuda_host::Node> nodes;
};

struct CUgraphExec_st {
  std::vector<expertmesh::cuda_host::Node> nodes;
  std::shared_ptr<expertmesh::cuda_host::Work> last;  // Its launches never overlap.
};

struct cublasContext {
  cudaStream_t stream = nullptr;
};

namespace expertmesh::cuda_host {

// Which objects live. Thread-safe.
class Objects {
 public:
  static Objects& Get();

  template <typename T>
  T* Add(absl::string_view kind) {
    auto object = std::make_shared<T>();
    T* const raw = object.get();
    Keep(kind, raw, std::move(object));
    return raw;
  }
  // Dies if `object` is not a living one of this kind.
  void Check(absl::string_view call, absl::string_view kind, const void* object);
  // Also keeps it alive.
  template <typename T>
  std::shared_ptr<T> Use(absl::string_view call, absl::string_view kind, T* object) {
    return std::static_pointer_cast<T>(Hold(call, kind, object));
  }
  void Remove(absl::string_view call, absl::string_view kind, const void* object);

  std::vector<std::string> Leaks();
  void Reset();

 private:
  struct Entry {
    std::string kind;
    std::shared_ptr<void> object;
    std::vector<void*> made_by;
    uint64_t number;
  };
  Objects() = default;
  void Keep(absl::string_view kind, const void* raw, std::shared_ptr<void> object);
  std::shared_ptr<void> Hold(absl::string_view call, absl::string_view kind, const void* object);

  absl::Mutex mutex_;
  std::map<const void*, Entry> living_ ABSL_GUARDED_BY(mutex_);
  // Their addresses are never used again before Reset, so that a destroyed one is known.
  std::vector<std::shared_ptr<void>> destroyed_ ABSL_GUARDED_BY(mutex_);
  uint64_t made_ ABSL_GUARDED_BY(mutex_) = 0;
};

inline constexpr absl::string_view kStream = "stream";
inline constexpr absl::string_view kEvent = "event";
inline constexpr absl::string_view kGraph = "graph";
inline constexpr absl::string_view kExecutableGraph = "executable graph";
inline constexpr absl::string_view kBlasHandle = "cuBLAS handle";

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_OBJECTS_H_
