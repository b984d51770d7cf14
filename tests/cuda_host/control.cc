// cuda_host.h.
#include <cstdint>
#include <string>
#include <vector>

#include "tests/cuda_host/calls.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/device_state.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/objects.h"
#include "tests/cuda_host/queue.h"

namespace expertmesh::cuda_host {

void Reset(uint64_t seed) {
  Queue::Get().Reset(seed);  // First: its threads use what the others have.
  Memory::Get().Reset();
  Objects::Get().Reset();
  DeviceState::Get().Reset();
  Calls::Get().Reset();
}

void FailCall(int64_t n, Failure failure) { Calls::Get().Fail(n, failure); }
bool FailureHappened() { return Calls::Get().failure_happened(); }
int64_t CallCount() { return Calls::Get().count(); }
std::string LastCall() { return Calls::Get().last(); }
void RemoveDriver() { Calls::Get().RemoveDriver(); }

std::vector<std::string> Leaks() {
  std::vector<std::string> leaks = Memory::Get().Leaks();
  const std::vector<std::string> objects = Objects::Get().Leaks();
  leaks.insert(leaks.end(), objects.begin(), objects.end());
  return leaks;
}

cudaDeviceProp DeviceProperties() { return DeviceState::Get().properties(); }
void SetDeviceProperties(const cudaDeviceProp& properties) {
  DeviceState::Get().set_properties(properties);
}

void SetBackgroundProgress(bool on) { Queue::Get().SetBackgroundProgress(on); }
void RunAll() { Queue::Get().AwaitAll(); }
void CheckBlocksUpTo(uint64_t blocks) { Queue::Get().CheckBlocksUpTo(blocks); }

}  // namespace expertmesh::cuda_host
