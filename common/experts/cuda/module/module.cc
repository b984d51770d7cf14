// libexpertmesh_cuda.so: the CUDA backend for programs that open it (common/experts/device.h).
#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status_macros.h"
#include "common/base/version.h"
#include "common/cuda/cuda_status.h"
#include "common/experts/cuda/cuda_backend.h"
#include "common/experts/cuda_module.h"

namespace expertmesh::experts {
namespace {

absl::StatusOr<int> CountDevices() {
  int devices = 0;  // Without a driver the call leaves it as it is.
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaErrorNoDevice) {
    return 0;
  }
  if (error == cudaSuccess) {
    return devices;
  }
  // Whatever it is, no GPU can be used here.
  return absl::UnavailableError(cuda::ToStatus(error, "cudaGetDeviceCount").message());
}

// Dense bf16 FLOPs of a multiprocessor in a clock; 0: not known here.
double FlopsPerClock(int major, int minor) {
  switch (10 * major + minor) {
    case 80:
      return 2048;
    case 90:
      return 4096;
    case 100:
      return 8192;
    default:
      return 0;
  }
}

absl::StatusOr<DeviceInfo> InfoOf(int device) {
  cudaDeviceProp properties;
  RETURN_IF_ERROR(
      cuda::ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  int clock_khz = 0;
  int memory_khz = 0;
  // Not every device tells them.
  (void)cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, device);
  (void)cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, device);
  DeviceInfo info;
  info.name = properties.name;
  // Two transfers in a clock.
  info.peak_bytes_per_second = 2e3 * memory_khz * properties.memoryBusWidth / 8;
  info.peak_bf16_flops = FlopsPerClock(properties.major, properties.minor) *
                         properties.multiProcessorCount * 1e3 * clock_khz;
  return info;
}

// Reads the device's memory. Thread-safe.
class MemoryReader {
 public:
  explicit MemoryReader(int device) : device_(device) {}

  // What was read last where the device does not answer, as after its loss.
  DeviceStats Read() {
    size_t free = 0;
    size_t total = 0;
    const bool read =
        cudaSetDevice(device_) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess;
    const absl::MutexLock lock(&mutex_);
    if (read) {
      stats_.memory_used_bytes = total - free;
      stats_.memory_total_bytes = total;
    }
    const cuda::ErrorCounts errors = cuda::CountedErrors();
    stats_.memory_errors = errors.memory;
    stats_.hardware_errors = errors.hardware;
    stats_.other_errors = errors.other;
    return stats_;
  }

 private:
  const int device_;
  absl::Mutex mutex_;
  DeviceStats stats_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<Device> Open(int device, const DeviceOptions& options) {
  CudaBackendOptions backend_options;
  static_cast<BackendOptions&>(backend_options) = options.backend;
  backend_options.device = device;
  backend_options.product =
      options.product == DeviceProduct::kCublas ? CudaProduct::kCublas : CudaProduct::kFixedOrder;
  backend_options.device_memory_bytes = options.memory_bytes;
  backend_options.on_device_lost = options.on_lost;
  Device opened;
  ASSIGN_OR_RETURN(opened.info, InfoOf(device));
  ASSIGN_OR_RETURN(opened.backend, MakeCudaBackend(backend_options));
  opened.stats = [reader = std::make_shared<MemoryReader>(device)] { return reader->Read(); };
  return opened;
}

const CudaModule* Describe() {
  static const auto* const build = new std::string(ProgramVersion().Text());
  static const CudaModule module = {build->c_str(), CountDevices, Open};
  return &module;
}

}  // namespace
}  // namespace expertmesh::experts

EXPERTMESH_CUDA_MODULE(expertmesh::experts::Describe)
