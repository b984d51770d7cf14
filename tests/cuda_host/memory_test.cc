// Device and pinned memory: who may touch what, and when.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "common/cuda/launch.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/buffers.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/fixture.h"
#include "tests/cuda_host/sample_kernels.h"

namespace expertmesh::cuda_host {
namespace {

using cuda::Launch;
using testing::ElementsAre;
using testing::HasSubstr;

using MemoryTest = CudaHostTest;
using MemoryDeathTest = CudaHostTest;

float* MakeForLeak() {
  float* leaked = nullptr;
  EXPECT_EQ(cudaMalloc(&leaked, 400), cudaSuccess);
  return leaked;
}

TEST_F(MemoryTest, EveryByteOfAnAllocationIsThere) {
  for (const size_t bytes : {1, 255, 256, 257, 4095, 4096, 4097, 100000}) {
    DeviceBuffer<char> buffer(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 256, 0u);
    ASSERT_EQ(Launch(WriteAt, {1, 1}, nullptr, buffer.data(), 0, 'a'), cudaSuccess);
    ASSERT_EQ(Launch(WriteAt, {1, 1}, nullptr, buffer.data(), bytes - 1, 'z'), cudaSuccess);
    const std::vector<char> values = buffer.Read();
    EXPECT_EQ(values.back(), 'z');
    EXPECT_EQ(values.front(), bytes == 1 ? 'z' : 'a');
  }
}

TEST_F(MemoryDeathTest, TheHostMustNotTouchDeviceMemory) {
  DeviceBuffer<float> buffer(std::vector<float>{1, 2, 3});
  volatile float* const data = buffer.data();
  EXPECT_DEATH((void)data[1],
               "host code touches device memory at byte 4 of device allocation 1 "
               "\\(12 bytes, made by .*DeviceBuffer");
  EXPECT_DEATH(data[0] = 1.0f, "host code touches device memory at byte 0");
  // Also after work that touched it.
  buffer.Read();
  EXPECT_DEATH((void)data[1], "host code touches device memory");
}

TEST_F(MemoryDeathTest, KernelsMustStayInBounds) {
  DeviceBuffer<char> buffer(1000);
  const auto write = [&](int64_t offset) {
    Launch(WriteAt, {1, 1}, nullptr, buffer.data(), offset, 'x');
    cudaDeviceSynchronize();
  };
  write(999);
  EXPECT_DEATH(write(1024),
               "kernel cuda_host::WriteAt, block \\(0, 0, 0\\), thread \\(0, 0, 0\\) "
               "touches memory out of bounds at byte 1024 of device allocation 1");
  EXPECT_DEATH(write(1000), "kernel cuda_host::WriteAt wrote past the last byte of device");
  EXPECT_DEATH(write(-1), "kernel cuda_host::WriteAt wrote before the first byte of device");
  EXPECT_DEATH(write(-5000), "touches memory out of bounds at byte -5000");
  EXPECT_DEATH(write(int64_t{1} << 44), "which is no device memory");
}

// Blocks that are checked against one another have their pages opened one by one.
TEST_F(MemoryDeathTest, BlocksMustStayInBounds) {
  DeviceBuffer<float> in(std::vector<float>(64, 1.0f));
  DeviceBuffer<float> out(63);
  EXPECT_DEATH(
      {
        Launch(ScaleUnguarded, {2, 32}, nullptr, out.data(), in.data(), 2.0f);
        cudaDeviceSynchronize();
      },
      "kernel cuda_host::ScaleUnguarded wrote past the last byte of device allocation 2");
}

TEST_F(MemoryDeathTest, FreedMemoryIsNeverTouchedAgain) {
  DeviceBuffer<float> out(1);
  DeviceBuffer<const float*> pointers(1);
  float* freed = MakeForLeak();
  EXPECT_EQ(cudaMemcpyAsync(pointers.data(), &freed, sizeof(freed), cudaMemcpyHostToDevice),
            cudaSuccess);
  EXPECT_EQ(cudaFree(freed), cudaSuccess);
  EXPECT_DEATH(cudaFree(freed), "cudaFree a second time of device allocation 3 .*MakeForLeak");
  EXPECT_DEATH(Launch(Scale, {1, 1}, nullptr, out.data(), freed, 1, 1.0f),
               "kernel cuda_host::Scale: its pointer 2 of 2.*or it was freed");
  EXPECT_DEATH(
      {
        Launch(Follow, {1, 1}, nullptr, out.data(), pointers.data());
        cudaDeviceSynchronize();
      },
      "kernel cuda_host::Follow.* touches freed memory at byte 0 of device allocation 3");
  EXPECT_DEATH((void)*static_cast<volatile float*>(freed), "host code touches freed memory");
}

TEST_F(MemoryDeathTest, OnlyWhatWasAllocatedIsFreed) {
  DeviceBuffer<float> device(4);
  PinnedBuffer<float> pinned(4);
  int local = 0;
  EXPECT_DEATH(cudaFree(&local), "cudaFree of what was never allocated");
  EXPECT_DEATH(cudaFree(device.data() + 1), "cudaFree of a pointer to byte 4 of device");
  EXPECT_DEATH(cudaFree(pinned.data()), "cudaFree of a pointer to byte 0 of pinned");
  EXPECT_DEATH(cudaFreeHost(device.data()), "cudaFreeHost of a pointer to byte 0 of device");
  EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
  EXPECT_EQ(cudaFreeHost(nullptr), cudaSuccess);
}

TEST_F(MemoryDeathTest, KernelsTakeNoPointersToTheHost) {
  DeviceBuffer<float> out(1);
  std::vector<float> in(1);
  EXPECT_DEATH(Launch(Scale, {1, 1}, nullptr, out.data(), in.data(), 1, 1.0f),
               "pointer 2 of 2, .*, is neither device nor pinned memory: a copy is missing");
  PinnedBuffer<float> pinned(1);
  pinned[0] = 3.0f;
  EXPECT_EQ(Launch(Scale, {1, 1}, nullptr, out.data(), pinned.data(), 1, 2.0f), cudaSuccess);
  EXPECT_EQ(out.Read(), std::vector<float>{6.0f});
}

TEST_F(MemoryDeathTest, PinnedMemoryHasBoundsAsWell) {
  PinnedBuffer<char> buffer(100);
  volatile char* const data = buffer.data();
  data[99] = 'x';
  EXPECT_DEATH(data[256] = 'x', "host code touches memory out of bounds at byte 256 of pinned");
  EXPECT_DEATH(
      {
        data[100] = 'x';
        cudaFreeHost(buffer.data());
      },
      "something wrote beside pinned allocation 1");
  EXPECT_DEATH(
      {
        cudaFreeHost(buffer.data());
        data[0] = 'x';
      },
      "host code touches freed memory at byte 0 of pinned allocation 1");
}

TEST_F(MemoryDeathTest, CopiesAreOfTheKindTheySayAndFit) {
  DeviceBuffer<float> device(std::vector<float>{1, 2});
  std::vector<float> host(4);
  const auto copy = [](void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  };
  EXPECT_EQ(copy(host.data(), device.data(), 8, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(device.data(), host.data(), 8, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(copy(device.data(), host.data(), 8, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(host.data(), nullptr, 8, cudaMemcpyDefault), cudaErrorInvalidValue);
  EXPECT_EQ(copy(host.data(), device.data(), 8, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(host[1], 2.0f);
  EXPECT_EQ(copy(nullptr, nullptr, 0, cudaMemcpyDefault), cudaSuccess);
  EXPECT_DEATH(copy(host.data(), device.data() + 1, 8, cudaMemcpyDeviceToHost),
               "cudaMemcpyAsync of 8 bytes at byte 4 of an allocation of 8");
  EXPECT_DEATH(cudaMemsetAsync(device.data(), 0, 9, nullptr),
               "cudaMemsetAsync of 9 bytes at byte 0 of an allocation of 8");
}

TEST_F(MemoryTest, LeaksAreNamedWithWhoMadeThem) {
  float* const leaked = MakeForLeak();
  cudaStream_t stream = nullptr;
  EXPECT_EQ(cudaStreamCreateWithFlags(&stream, 0), cudaSuccess);
  EXPECT_THAT(Leaks(), ElementsAre(HasSubstr("device allocation 1 (400 bytes, made by "),
                                   HasSubstr("stream 1 (made by ")));
  EXPECT_THAT(Leaks()[0], HasSubstr("MakeForLeak"));
  EXPECT_EQ(cudaFree(leaked), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_THAT(Leaks(), ElementsAre());
}

TEST_F(MemoryTest, TheDeviceHasSoMuchMemory) {
  cudaDeviceProp device = DeviceProperties();
  device.totalGlobalMem = 1000;
  SetDeviceProperties(device);
  DeviceBuffer<char> first(600);
  size_t free = 0;
  size_t total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free, 400u);
  EXPECT_EQ(total, 1000u);
  void* pointer = &free;
  EXPECT_EQ(cudaMalloc(&pointer, 401), cudaErrorMemoryAllocation);
  EXPECT_EQ(pointer, &free) << "unset";
  DeviceBuffer<char> second(400);
}

}  // namespace
}  // namespace expertmesh::cuda_host
