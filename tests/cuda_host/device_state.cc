#include "tests/cuda_host/device_state.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/synchronization/mutex.h"

namespace expertmesh::cuda_host {
namespace {

cudaDeviceProp H100() {
  cudaDeviceProp h100 = {};
  std::strncpy(h100.name, "cuda_host, like an H100", sizeof(h100.name) - 1);
  h100.totalGlobalMem = size_t{80} << 30;
  h100.sharedMemPerBlock = 48 << 10;
  h100.regsPerBlock = 65536;
  h100.warpSize = 32;
  h100.maxThreadsPerBlock = 1024;
  h100.maxThreadsDim[0] = h100.maxThreadsDim[1] = 1024;
  h100.maxThreadsDim[2] = 64;
  h100.maxGridSize[0] = 0x7fffffff;
  h100.maxGridSize[1] = h100.maxGridSize[2] = 65535;
  h100.totalConstMem = 64 << 10;
  h100.major = 9;
  h100.multiProcessorCount = 132;
  h100.ECCEnabled = 1;
  h100.asyncEngineCount = 3;
  h100.memoryBusWidth = 5120;
  h100.l2CacheSize = 50 << 20;
  h100.maxThreadsPerMultiProcessor = 2048;
  h100.sharedMemPerMultiprocessor = 228 << 10;
  h100.regsPerMultiprocessor = 65536;
  h100.sharedMemPerBlockOptin = 227 << 10;
  return h100;
}

}  // namespace

DeviceState::DeviceState() : properties_(H100()) {}

DeviceState& DeviceState::Get() {
  static auto* const state = new DeviceState();
  return *state;
}

cudaDeviceProp DeviceState::properties() {
  const absl::MutexLock lock(&mutex_);
  return properties_;
}

void DeviceState::set_properties(const cudaDeviceProp& properties) {
  const absl::MutexLock lock(&mutex_);
  properties_ = properties;
}

size_t DeviceState::SharedBytesOf(const void* kernel) {
  const absl::MutexLock lock(&mutex_);
  const auto found = shared_bytes_.find(kernel);
  return found == shared_bytes_.end() ? properties_.sharedMemPerBlock : found->second;
}

void DeviceState::AllowSharedBytes(const void* kernel, size_t bytes) {
  const absl::MutexLock lock(&mutex_);
  shared_bytes_[kernel] = bytes;
}

uint64_t DeviceState::CountLaunch(const void* kernel, const dim3& grid) {
  const absl::MutexLock lock(&mutex_);
  return launches_[{kernel, grid.x, grid.y, grid.z}]++;
}

void DeviceState::Reset() {
  const absl::MutexLock lock(&mutex_);
  properties_ = H100();
  shared_bytes_.clear();
  launches_.clear();
}

}  // namespace expertmesh::cuda_host
