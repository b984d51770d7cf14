// The runtime's calls about streams, events, host functions and graphs.
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"
#include "tests/cuda_host/entry.h"
#include "tests/cuda_host/objects.h"
#include "tests/cuda_host/queue.h"

namespace expertmesh::cuda_host {
namespace {

// The null stream always lives.
void CheckStream(const char* call, cudaStream_t stream) {
  if (stream != nullptr) {
    Objects::Get().Check(call, kStream, stream);
  }
}

void CheckEvent(const char* call, cudaEvent_t event) { Objects::Get().Check(call, kEvent, event); }

}  // namespace
}  // namespace expertmesh::cuda_host

namespace cuda_host = expertmesh::cuda_host;
using cuda_host::Call;
using cuda_host::EnqueueCall;
using cuda_host::Objects;
using cuda_host::Queue;
using cuda_host::ReleaseCall;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  return Call("cudaStreamCreateWithFlags", [&] {
    if (stream == nullptr || flags > cudaStreamNonBlocking) {
      return cudaErrorInvalidValue;
    }
    *stream = Objects::Get().Add<CUstream_st>(cuda_host::kStream);
    (*stream)->blocking = flags == cudaStreamDefault;
    return cudaSuccess;
  });
}

// Returns at once; what is queued is still executed.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return ReleaseCall("cudaStreamDestroy", [&] {
    if (stream == nullptr) {
      return cudaErrorInvalidResourceHandle;
    }
    Objects::Get().Remove("cudaStreamDestroy", cuda_host::kStream, stream);
    Queue::Get().ForgetStream(stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return Call("cudaStreamSynchronize", [&] {
    cuda_host::CheckStream("cudaStreamSynchronize", stream);
    return Queue::Get().BreaksCapture(stream) ? cudaErrorStreamCaptureUnsupported
                                              : Queue::Get().AwaitStream(stream);
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return Call("cudaStreamQuery", [&] {
    cuda_host::CheckStream("cudaStreamQuery", stream);
    return Queue::Get().BreaksCapture(stream) ? cudaErrorStreamCaptureUnsupported
                                              : Queue::Get().PollStream(stream);
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
  return Call("cudaStreamWaitEvent", [&] {
    cuda_host::CheckStream("cudaStreamWaitEvent", stream);
    cuda_host::CheckEvent("cudaStreamWaitEvent", event);
    return flags != 0 ? cudaErrorInvalidValue : Queue::Get().WaitEvent(stream, event);
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags) {
  return Call("cudaEventCreateWithFlags", [&] {
    if (event == nullptr || flags > (cudaEventBlockingSync | cudaEventDisableTiming)) {
      return cudaErrorInvalidValue;
    }
    *event = Objects::Get().Add<CUevent_st>(cuda_host::kEvent);
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return ReleaseCall("cudaEventDestroy", [&] {
    if (event == nullptr) {
      return cudaErrorInvalidResourceHandle;
    }
    Objects::Get().Remove("cudaEventDestroy", cuda_host::kEvent, event);
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return Call("cudaEventRecord", [&] {
    cuda_host::CheckStream("cudaEventRecord", stream);
    cuda_host::CheckEvent("cudaEventRecord", event);
    return Queue::Get().Record(event, stream);
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return Call("cudaEventQuery", [&] {
    cuda_host::CheckEvent("cudaEventQuery", event);
    return Queue::Get().PollEvent(event);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return Call("cudaEventSynchronize", [&] {
    cuda_host::CheckEvent("cudaEventSynchronize", event);
    return Queue::Get().BreaksCapture() ? cudaErrorStreamCaptureUnsupported
                                        : Queue::Get().AwaitEvent(event);
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* user_data) {
  return EnqueueCall("cudaLaunchHostFunc", [&](cudaError_t failure) {
    cuda_host::CheckStream("cudaLaunchHostFunc", stream);
    if (function == nullptr) {
      return cudaErrorInvalidValue;
    }
    Queue::Get().Add(stream, {.what = "a host function",
                              .run = [=] { function(user_data); },
                              .is_host_function = true,
                              .failure = failure});
    return cudaSuccess;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return Call("cudaStreamBeginCapture", [&] {
    cuda_host::CheckStream("cudaStreamBeginCapture", stream);
    return Queue::Get().BeginCapture(stream, mode);
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return Call("cudaStreamEndCapture", [&] {
    cuda_host::CheckStream("cudaStreamEndCapture", stream);
    std::vector<cuda_host::Node> nodes;
    *graph = nullptr;
    const cudaError_t error = Queue::Get().EndCapture(stream, &nodes);
    if (error == cudaSuccess) {
      *graph = Objects::Get().Add<CUgraph_st>(cuda_host::kGraph);
      (*graph)->nodes = std::move(nodes);
    }
    return error;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  return Call("cudaGraphInstantiate", [&] {
    Objects::Get().Check("cudaGraphInstantiate", cuda_host::kGraph, graph);
    *executable = Objects::Get().Add<CUgraphExec_st>(cuda_host::kExecutableGraph);
    (*executable)->nodes = graph->nodes;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return EnqueueCall("cudaGraphLaunch", [&](cudaError_t failure) {
    cuda_host::CheckStream("cudaGraphLaunch", stream);
    Objects::Get().Check("cudaGraphLaunch", cuda_host::kExecutableGraph, executable);
    return Queue::Get().LaunchGraph(*executable, stream, failure);
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return ReleaseCall("cudaGraphDestroy", [&] {
    Objects::Get().Remove("cudaGraphDestroy", cuda_host::kGraph, graph);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return ReleaseCall("cudaGraphExecDestroy", [&] {
    Objects::Get().Remove("cudaGraphExecDestroy", cuda_host::kExecutableGraph, executable);
    return cudaSuccess;
  });
}
