// The frame of every runtime call: what must happen before its own work, and after.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_ENTRY_H_
#define EXPERTMESH_TESTS_CUDA_HOST_ENTRY_H_

#include "cuda_runtime_api.h"
#include "tests/cuda_host/calls.h"

namespace expertmesh::cuda_host {

// A call that does `work()`, which returns an error.
template <typename F>
cudaError_t Call(const char* name, F work) {
  Calls& calls = Calls::Get();
  const Calls::Verdict verdict = calls.Begin(name);
  return calls.End(verdict.error.has_value() ? *verdict.error : work());
}

// A call that enqueues: `work(failure)` enqueues what fails with `failure`, unless that is
// cudaSuccess.
template <typename F>
cudaError_t EnqueueCall(const char* name, F work) {
  Calls& calls = Calls::Get();
  const Calls::Verdict verdict = calls.Begin(name, Calls::Kind::kEnqueues);
  return calls.End(verdict.error.has_value() ? *verdict.error : work(verdict.later));
}

// A call that frees or destroys, which it does whatever it returns.
template <typename F>
cudaError_t ReleaseCall(const char* name, F work) {
  Calls& calls = Calls::Get();
  const Calls::Verdict verdict = calls.Begin(name);
  const cudaError_t error = verdict.no_driver ? cudaSuccess : work();
  return calls.End(verdict.error.value_or(error));
}

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_ENTRY_H_
