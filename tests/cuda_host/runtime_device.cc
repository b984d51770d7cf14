// The runtime's calls about the device, versions and errors.
#include "cuda_runtime_api.h"
#include "tests/cuda_host/calls.h"
#include "tests/cuda_host/device_state.h"
#include "tests/cuda_host/entry.h"
#include "tests/cuda_host/queue.h"

namespace expertmesh::cuda_host {
namespace {

constexpr int kVersion = 13000;

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};

constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotPermitted, "cudaErrorNotPermitted", "operation not permitted"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorText* TextOf(cudaError_t error) {
  for (const ErrorText& known : kErrors) {
    if (known.error == error) {
      return &known;
    }
  }
  return nullptr;
}

cudaError_t AttributeOf(const cudaDeviceProp& prop, cudaDeviceAttr attr, int* value) {
  const struct {
    cudaDeviceAttr attr;
    size_t value;
  } known[] = {
      {cudaDevAttrMaxThreadsPerBlock, static_cast<size_t>(prop.maxThreadsPerBlock)},
      {cudaDevAttrMaxBlockDimX, static_cast<size_t>(prop.maxThreadsDim[0])},
      {cudaDevAttrMaxBlockDimY, static_cast<size_t>(prop.maxThreadsDim[1])},
      {cudaDevAttrMaxBlockDimZ, static_cast<size_t>(prop.maxThreadsDim[2])},
      {cudaDevAttrMaxGridDimX, static_cast<size_t>(prop.maxGridSize[0])},
      {cudaDevAttrMaxGridDimY, static_cast<size_t>(prop.maxGridSize[1])},
      {cudaDevAttrMaxGridDimZ, static_cast<size_t>(prop.maxGridSize[2])},
      {cudaDevAttrMaxSharedMemoryPerBlock, prop.sharedMemPerBlock},
      {cudaDevAttrTotalConstantMemory, prop.totalConstMem},
      {cudaDevAttrWarpSize, static_cast<size_t>(prop.warpSize)},
      {cudaDevAttrMaxRegistersPerBlock, static_cast<size_t>(prop.regsPerBlock)},
      {cudaDevAttrClockRate, 1980000},
      {cudaDevAttrMultiProcessorCount, static_cast<size_t>(prop.multiProcessorCount)},
      {cudaDevAttrIntegrated, static_cast<size_t>(prop.integrated)},
      {cudaDevAttrEccEnabled, static_cast<size_t>(prop.ECCEnabled)},
      {cudaDevAttrMemoryClockRate, 2619000},
      {cudaDevAttrGlobalMemoryBusWidth, static_cast<size_t>(prop.memoryBusWidth)},
      {cudaDevAttrL2CacheSize, static_cast<size_t>(prop.l2CacheSize)},
      {cudaDevAttrMaxThreadsPerMultiProcessor,
       static_cast<size_t>(prop.maxThreadsPerMultiProcessor)},
      {cudaDevAttrAsyncEngineCount, static_cast<size_t>(prop.asyncEngineCount)},
      {cudaDevAttrComputeCapabilityMajor, static_cast<size_t>(prop.major)},
      {cudaDevAttrComputeCapabilityMinor, static_cast<size_t>(prop.minor)},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, prop.sharedMemPerMultiprocessor},
      {cudaDevAttrMaxRegistersPerMultiprocessor, static_cast<size_t>(prop.regsPerMultiprocessor)},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, prop.sharedMemPerBlockOptin},
  };
  for (const auto& one : known) {
    if (one.attr == attr) {
      *value = static_cast<int>(one.value);
      return cudaSuccess;
    }
  }
  return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace expertmesh::cuda_host

using expertmesh::cuda_host::Call;
using expertmesh::cuda_host::Calls;
using expertmesh::cuda_host::DeviceState;
using expertmesh::cuda_host::Queue;

cudaError_t cudaGetDeviceCount(int* count) {
  return Call("cudaGetDeviceCount", [&] {
    *count = 1;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return Call("cudaSetDevice", [&] { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDevice(int* device) {
  return Call("cudaGetDevice", [&] {
    *device = 0;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attr, int device) {
  return Call("cudaDeviceGetAttribute", [&] {
    return device != 0
               ? cudaErrorInvalidDevice
               : expertmesh::cuda_host::AttributeOf(DeviceState::Get().properties(), attr, value);
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int device) {
  return Call("cudaGetDeviceProperties", [&] {
    if (device != 0) {
      return cudaErrorInvalidDevice;
    }
    *prop = DeviceState::Get().properties();
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return Call("cudaDeviceSynchronize", [] {
    return Queue::Get().BreaksCapture() ? cudaErrorStreamCaptureUnsupported
                                        : Queue::Get().AwaitAll();
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  const Calls::Verdict verdict = Calls::Get().Begin("cudaDriverGetVersion");
  if (verdict.error.has_value() && !verdict.no_driver) {
    return Calls::Get().End(*verdict.error);
  }
  *version = verdict.no_driver ? 0 : expertmesh::cuda_host::kVersion;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  return Call("cudaRuntimeGetVersion", [&] {
    *version = expertmesh::cuda_host::kVersion;
    return cudaSuccess;
  });
}

cudaError_t cudaGetLastError() { return Calls::Get().LastError(true); }
cudaError_t cudaPeekAtLastError() { return Calls::Get().LastError(false); }

const char* cudaGetErrorName(cudaError_t error) {
  const auto* known = expertmesh::cuda_host::TextOf(error);
  return known == nullptr ? "unrecognized error code" : known->name;
}

const char* cudaGetErrorString(cudaError_t error) {
  const auto* known = expertmesh::cuda_host::TextOf(error);
  return known == nullptr ? "unrecognized error code" : known->text;
}
