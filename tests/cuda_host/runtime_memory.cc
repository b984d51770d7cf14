// The runtime's calls that allocate, free, copy and set memory.
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cuda_runtime_api.h"
#include "tests/cuda_host/device_state.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/entry.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/queue.h"

namespace expertmesh::cuda_host {
namespace {

cudaError_t Allocate(Memory::Kind kind, void** pointer, size_t size) {
  if (Queue::Get().BreaksCapture()) {
    return cudaErrorStreamCaptureUnsupported;
  }
  if (pointer == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (size == 0) {
    *pointer = nullptr;
    return cudaSuccess;
  }
  const size_t total = DeviceState::Get().properties().totalGlobalMem;
  if (kind == Memory::Kind::kDevice && size > total - Memory::Get().DeviceBytes()) {
    return cudaErrorMemoryAllocation;
  }
  void* const data = Memory::Get().Allocate(kind, size);
  if (data == nullptr) {
    return cudaErrorMemoryAllocation;
  }
  *pointer = data;
  return cudaSuccess;
}

// Whether the two sides are what `kind` says. Pinned memory is the host's.
bool Fits(cudaMemcpyKind kind, bool to_device, bool from_device) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

void CheckFits(const char* call, const Memory::Range& range, size_t size) {
  if (range.kind != Memory::Kind::kNeither && range.left < size) {
    Die(absl::StrCat(call, " of ", size, " bytes at byte ", range.bytes - range.left,
                     " of an allocation of ", range.bytes));
  }
}

cudaError_t Copy(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream,
                 cudaError_t failure) {
  if (stream != nullptr) {
    Objects::Get().Check("cudaMemcpyAsync", kStream, stream);
  }
  if (size == 0) {
    return cudaSuccess;
  }
  const Memory::Range target = Memory::Get().Find(to);
  const Memory::Range source = Memory::Get().Find(from);
  if (to == nullptr || from == nullptr ||
      !Fits(kind, target.kind == Memory::Kind::kDevice, source.kind == Memory::Kind::kDevice)) {
    return cudaErrorInvalidValue;
  }
  CheckFits("cudaMemcpyAsync", target, size);
  CheckFits("cudaMemcpyAsync", source, size);
  Work work = {.what = absl::StrCat("a copy of ", size, " bytes"), .failure = failure};
  if (target.kind == Memory::Kind::kPinned) {
    work.pinned.push_back({static_cast<char*>(to), size});
  }
  if (source.kind == Memory::Kind::kPinned) {
    work.pinned.push_back({static_cast<const char*>(from), size});
  }
  if (source.kind == Memory::Kind::kNeither && !Queue::Get().Captures(stream)) {
    // Pageable memory may change when the call has returned.
    auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(from),
                                                      static_cast<const char*>(from) + size);
    work.run = [to, staged] { std::memcpy(to, staged->data(), staged->size()); };
  } else {
    work.run = [to, from, size] { std::memmove(to, from, size); };
  }
  const std::shared_ptr<Work> added = Queue::Get().Add(stream, std::move(work));
  // Copies to pageable memory are done when the call returns.
  return target.kind == Memory::Kind::kNeither ? Queue::Get().Await(added) : cudaSuccess;
}

cudaError_t Fill(void* pointer, int value, size_t size, cudaStream_t stream, cudaError_t failure) {
  if (stream != nullptr) {
    Objects::Get().Check("cudaMemsetAsync", kStream, stream);
  }
  if (size == 0) {
    return cudaSuccess;
  }
  const Memory::Range range = Memory::Get().Find(pointer);
  if (range.kind == Memory::Kind::kNeither) {
    return cudaErrorInvalidValue;
  }
  CheckFits("cudaMemsetAsync", range, size);
  Work work = {.what = absl::StrCat("a memset of ", size, " bytes"),
               .run = [=] { std::memset(pointer, value, size); },
               .failure = failure};
  if (range.kind == Memory::Kind::kPinned) {
    work.pinned.push_back({static_cast<char*>(pointer), size});
  }
  Queue::Get().Add(stream, std::move(work));
  return cudaSuccess;
}

}  // namespace
}  // namespace expertmesh::cuda_host

using expertmesh::cuda_host::Call;
using expertmesh::cuda_host::Calls;
using expertmesh::cuda_host::DeviceState;
using expertmesh::cuda_host::EnqueueCall;
using expertmesh::cuda_host::Memory;
using expertmesh::cuda_host::Queue;
using expertmesh::cuda_host::ReleaseCall;

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return Call("cudaMemGetInfo", [&] {
    *total = DeviceState::Get().properties().totalGlobalMem;
    *free = *total - Memory::Get().DeviceBytes();
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** pointer, size_t size) {
  return Call("cudaMalloc", [&] {
    return expertmesh::cuda_host::Allocate(Memory::Kind::kDevice, pointer, size);
  });
}

// Waits for all work of the device, as the real one does.
cudaError_t cudaFree(void* pointer) {
  return ReleaseCall("cudaFree", [&] {
    if (pointer == nullptr) {
      return cudaSuccess;
    }
    if (Queue::Get().BreaksCapture()) {
      return cudaErrorStreamCaptureUnsupported;
    }
    const cudaError_t error = Queue::Get().AwaitAll();
    Memory::Get().Free(Memory::Kind::kDevice, pointer);
    return error;
  });
}

cudaError_t cudaMallocHost(void** pointer, size_t size) {
  return Call("cudaMallocHost", [&] {
    return expertmesh::cuda_host::Allocate(Memory::Kind::kPinned, pointer, size);
  });
}

// Does not wait: nothing that is documented says it would.
cudaError_t cudaFreeHost(void* pointer) {
  return ReleaseCall("cudaFreeHost", [&] {
    if (pointer == nullptr) {
      return cudaSuccess;
    }
    if (Calls::Get().broken() != cudaSuccess) {
      Queue::Get().AwaitAll();  // Drops what a broken device will not do.
    }
    const Memory::Range range = Memory::Get().Find(pointer);
    Queue::Get().CheckUnused(range.data, range.bytes);
    Memory::Get().Free(Memory::Kind::kPinned, pointer);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return EnqueueCall("cudaMemcpyAsync", [&](cudaError_t failure) {
    return expertmesh::cuda_host::Copy(to, from, size, kind, stream, failure);
  });
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t size, cudaStream_t stream) {
  return EnqueueCall("cudaMemsetAsync", [&](cudaError_t failure) {
    return expertmesh::cuda_host::Fill(pointer, value, size, stream, failure);
  });
}
