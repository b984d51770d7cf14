// Queued work of all streams, and who executes it when: as late as the calls allow, and between
// streams in an order that the seed chooses within what stream order and event waits demand. So a
// missing wait shows as wrong data.
//
// Work is executed on the thread that waits for it: nothing happens beside a test of one thread
// that the test does not see, and the order depends on the seed and on the calls alone. Three rules
// of choice take turns with the seed: only what is waited for; everything else first; any.
//
// Only host functions have threads of the harness: one that runs them, since who waits may hold a
// lock that they want, and one that executes what is queued before them, since who waits for them
// is not seen to wait (SetBackgroundProgress).
#ifndef EXPERTMESH_TESTS_CUDA_HOST_QUEUE_H_
#define EXPERTMESH_TESTS_CUDA_HOST_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tests/cuda_host/objects.h"
#include "tests/cuda_host/random.h"

namespace expertmesh::cuda_host {

// Thread-safe, except Reset. Streams, events and graphs that are passed live; a null stream is the
// legacy default stream.
class Queue {
 public:
  static Queue& Get();

  // Adds work to a stream, or to the graph that the stream is captured into. The piece of work, or
  // null if it was captured.
  std::shared_ptr<Work> Add(cudaStream_t stream, Work work);

  cudaError_t Record(cudaEvent_t event, cudaStream_t stream);
  cudaError_t WaitEvent(cudaStream_t stream, cudaEvent_t event);

  // Return when the work is done: cudaSuccess, or what the device broke with.
  cudaError_t Await(const std::shared_ptr<Work>& work);
  cudaError_t AwaitStream(cudaStream_t stream);
  cudaError_t AwaitEvent(cudaEvent_t event);
  cudaError_t AwaitAll();
  // cudaErrorNotReady, some times, and then after the work.
  cudaError_t PollStream(cudaStream_t stream);
  cudaError_t PollEvent(cudaEvent_t event);

  cudaError_t BeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
  cudaError_t EndCapture(cudaStream_t stream, std::vector<Node>* nodes);
  cudaError_t LaunchGraph(CUgraphExec_st& graph, cudaStream_t stream, cudaError_t failure);
  // Whether a capture is under way that a call which waits for the device, or allocates, would
  // break (and does, if so); with a stream, one that has this stream in it.
  bool BreaksCapture();
  bool BreaksCapture(cudaStream_t stream);
  bool Captures(cudaStream_t stream);

  // Dies if queued work uses pinned memory in [data, data + bytes).
  void CheckUnused(const char* data, size_t bytes);
  void ForgetStream(cudaStream_t stream);

  void SetBackgroundProgress(bool on);
  void CheckBlocksUpTo(uint64_t blocks);
  uint64_t checked_blocks();
  // For the executing thread.
  Random& random() { return work_random_; }
  void Reset(uint64_t seed);

 private:
  enum class Rule { kOnlyAwaited, kOthersFirst, kAny };

  Queue();
  CUstream_st& StreamOf(cudaStream_t stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What the next work of a stream comes after.
  std::vector<std::shared_ptr<Work>> EndsOf(cudaStream_t stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Work> Append(Work work, std::vector<std::shared_ptr<Work>> after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // It comes after what is before it in the stream, and after `also`.
  std::shared_ptr<Work> AddLocked(cudaStream_t stream, Work work,
                                  std::vector<std::shared_ptr<Work>> also = {})
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddToCapture(cudaStream_t stream, Capture& capture, Work work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunUntil(const std::shared_ptr<Work>& target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Work> Choose(const std::set<const Work*>& awaited)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Execute(const std::shared_ptr<Work>& work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StopExecuting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const std::shared_ptr<Work>& work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  cudaError_t Poll(const std::shared_ptr<Work>& work, int* polls)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Work> OldestHostFunction() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartThreads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[noreturn]] void RunHostFunctions();
  [[noreturn]] void MakeProgress();

  absl::Mutex mutex_;
  absl::CondVar changed_;
  // In the order of the calls, from the first that is not done.
  std::deque<std::shared_ptr<Work>> pending_ ABSL_GUARDED_BY(mutex_);
  // Not running, and nothing before it that is not done.
  std::vector<std::shared_ptr<Work>> ready_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Work>> host_functions_ ABSL_GUARDED_BY(mutex_);
  // A thread executes work, and holds device memory open.
  bool executing_ ABSL_GUARDED_BY(mutex_) = false;
  bool running_host_function_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<cudaStream_t> streams_ ABSL_GUARDED_BY(mutex_);  // With work in them.
  CUstream_st null_stream_ ABSL_GUARDED_BY(mutex_);
  Rule rule_ ABSL_GUARDED_BY(mutex_) = Rule::kAny;
  Random random_ ABSL_GUARDED_BY(mutex_){0};
  bool background_ ABSL_GUARDED_BY(mutex_) = true;
  bool has_threads_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time last_added_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  uint64_t checked_blocks_ ABSL_GUARDED_BY(mutex_) = 64;
  std::vector<std::shared_ptr<Capture>> captures_ ABSL_GUARDED_BY(mutex_);
  Random work_random_{0};  // The executing thread's.
};

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_QUEUE_H_
