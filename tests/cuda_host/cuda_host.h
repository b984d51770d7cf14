// What tests say to the harness that runs CUDA code on the CPU (README.md): start again, fail a
// call, what is left over. The code under test sees only the toolkit's calls, of which the
// stand-ins are in tests/cuda_host/include.
//
// What the harness finds wrong ends the process with a message that begins "cuda_host:", so that
// GoogleTest's EXPECT_DEATH sees it. All functions are thread-safe, except Reset.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_CUDA_HOST_H_
#define EXPERTMESH_TESTS_CUDA_HOST_CUDA_HOST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cuda_runtime_api.h"

namespace expertmesh::cuda_host {

// Forgets everything: memory, streams, queued work, faults, properties. `seed` chooses the order of
// threads, blocks and streams from here on. No other thread may be in a call.
void Reset(uint64_t seed);

// What the n-th counted call from now (1: the next) does instead of its work. Counted are all calls
// of the runtime and cuBLAS that can fail, launches included; not counted are those that read the
// last error or name one. A call that frees or destroys does so whatever it returns, as the real
// ones do when they report an earlier error.
enum class Failure {
  kOutOfMemory,    // cudaErrorMemoryAllocation, CUBLAS_STATUS_ALLOC_FAILED.
  kLaunchFailure,  // A call that enqueues succeeds; what it enqueued fails when it is executed, and
                   // from then on every call returns cudaErrorLaunchFailure. Others fail at once.
  kSticky,         // cudaErrorIllegalAddress, from this and every later call.
  kPlain,          // cudaErrorUnknown, CUBLAS_STATUS_INTERNAL_ERROR, from this call only.
  kUnsupported,    // cudaErrorNotSupported, CUBLAS_STATUS_NOT_SUPPORTED, from this call only.
};
void FailCall(int64_t n, Failure failure);
// Whether that call has come.
bool FailureHappened();
// Counted calls since Reset, and the name of the last.
int64_t CallCount();
std::string LastCall();

// From now on as on a machine without a driver: every call returns cudaErrorInsufficientDriver and
// leaves its results unset, cublasCreate returns CUBLAS_STATUS_NOT_INITIALIZED, and only
// cudaDriverGetVersion succeeds, with 0.
void RemoveDriver();

// What lives: one line for each allocation, pinned allocation, stream, event, cuBLAS handle, graph
// and executable graph, with the functions that made it.
std::vector<std::string> Leaks();

// The device, at first like an H100. What is set holds for all later calls, until Reset.
cudaDeviceProp DeviceProperties();
void SetDeviceProperties(const cudaDeviceProp& properties);

// Host functions notify who waits for them, and the harness cannot see that wait: with background
// progress, which is on after Reset, queued work up to a host function is executed some 0.2 ms
// after the last work was queued. Other work is never executed before a call waits for it. Off:
// host functions run when a call waits for them, or RunAll is called, and never otherwise.
void SetBackgroundProgress(bool on);
// Executes all that is queued, in an order that the seed chooses.
void RunAll();

// Launches of 2 to `blocks` blocks are executed several times, to find what one block does to
// another: the first 4 of each kernel and grid after Reset, and one in 8 of the later ones. 64
// after Reset; 0 or 1: never.
void CheckBlocksUpTo(uint64_t blocks);

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_CUDA_HOST_H_
