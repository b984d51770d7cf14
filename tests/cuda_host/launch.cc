#include "cuda_host/launch.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cuda_host/block.h"
#include "tests/cuda_host/device_state.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/entry.h"
#include "tests/cuda_host/grid.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/objects.h"
#include "tests/cuda_host/queue.h"
#include "tests/cuda_host/symbols.h"

namespace expertmesh::cuda_host {
namespace {

size_t StaticSharedBytes(const void* kernel) {
  const std::vector<Variable>& variables = SharedVariablesOf(kernel);
  return std::accumulate(variables.begin(), variables.end(), size_t{0},
                         [](size_t sum, const Variable& v) { return sum + v.bytes; });
}

bool Fits(const dim3& size, const int (&limits)[3]) {
  const auto fits = [](unsigned int value, int limit) {
    return value > 0 && value <= static_cast<unsigned int>(limit);
  };
  return fits(size.x, limits[0]) && fits(size.y, limits[1]) && fits(size.z, limits[2]);
}

// What a launch of this shape returns.
cudaError_t Check(const KernelLaunch& launch) {
  const cudaDeviceProp device = DeviceState::Get().properties();
  if (!Fits(launch.grid, device.maxGridSize) || !Fits(launch.block, device.maxThreadsDim) ||
      size_t{launch.block.x} * launch.block.y * launch.block.z >
          static_cast<size_t>(device.maxThreadsPerBlock)) {
    return cudaErrorInvalidConfiguration;
  }
  if (launch.shared_bytes > DeviceState::Get().SharedBytesOf(launch.kernel) ||
      launch.shared_bytes + StaticSharedBytes(launch.kernel) > device.sharedMemPerBlockOptin) {
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

void CheckPointers(const KernelLaunch& launch) {
  for (size_t i = 0; i < launch.pointers.size(); ++i) {
    if (launch.pointers[i] != nullptr && !IsDeviceAccessible(launch.pointers[i])) {
      Die(absl::StrCat(
          "kernel ", FunctionAt(launch.kernel), ": its pointer ", i + 1, " of ",
          launch.pointers.size(), ", 0x",
          absl::Hex(reinterpret_cast<uintptr_t>(launch.pointers[i])),
          ", is neither device nor pinned memory: a copy is missing, or it was freed"));
    }
  }
}

}  // namespace

cudaError_t LaunchKernel(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                         cudaStream_t stream, std::function<void()> body,
                         std::vector<const void*> pointers) {
  return EnqueueCall("cudaLaunchKernelExC", [&](cudaError_t failure) {
    if (stream != nullptr) {
      Objects::Get().Check("a launch", kStream, stream);
    }
    auto launch = std::make_shared<KernelLaunch>(
        KernelLaunch{kernel, grid, block, shared_bytes, std::move(body), std::move(pointers)});
    if (const cudaError_t error = Check(*launch); error != cudaSuccess) {
      return error;
    }
    CheckPointers(*launch);
    Work work = {.what = absl::StrCat("kernel ", FunctionAt(kernel)), .failure = failure};
    work.run = [launch] {
      Queue& queue = Queue::Get();
      RunGrid(*launch, queue.checked_blocks(), queue.random());
    };
    for (const void* pointer : launch->pointers) {
      const Memory::Range range = Memory::Get().Find(pointer);
      if (range.kind == Memory::Kind::kPinned) {
        work.pinned.push_back({range.data, range.bytes});
      }
    }
    Queue::Get().Add(stream, std::move(work));
    return cudaSuccess;
  });
}

}  // namespace expertmesh::cuda_host

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  using expertmesh::cuda_host::DeviceState;
  return expertmesh::cuda_host::Call("cudaFuncSetAttribute", [&] {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
      return attribute == cudaFuncAttributePreferredSharedMemoryCarveout ? cudaSuccess
                                                                         : cudaErrorInvalidValue;
    }
    const size_t most = DeviceState::Get().properties().sharedMemPerBlockOptin;
    if (value < 0 ||
        static_cast<size_t>(value) + expertmesh::cuda_host::StaticSharedBytes(function) > most) {
      return cudaErrorInvalidValue;
    }
    DeviceState::Get().AllowSharedBytes(function, static_cast<size_t>(value));
    return cudaSuccess;
  });
}
