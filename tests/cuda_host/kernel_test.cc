// Threads, blocks, shared memory and meetings of threads.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "common/cuda/launch.h"
#include "cuda_bf16.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/buffers.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/fixture.h"
#include "tests/cuda_host/sample_kernels.h"

namespace expertmesh::cuda_host {
namespace {

using cuda::Launch;

using KernelTest = CudaHostTest;
using KernelDeathTest = CudaHostTest;

std::vector<float> Numbers(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(i + 1);
  }
  return values;
}

TEST_F(KernelTest, EveryThreadOfEveryBlockRunsOnce) {
  const dim3 grid(3, 2, 2);
  const dim3 block(5, 3, 4);
  DeviceBuffer<uint4> out(12 * 60);
  ASSERT_EQ(Launch(WriteBlocks, {grid, block}, nullptr, out.data()), cudaSuccess);
  const std::vector<uint4> places = out.Read();
  for (unsigned int i = 0; i < places.size(); ++i) {
    EXPECT_EQ(places[i].x, i / 60);
    EXPECT_EQ(places[i].y, i % 60);
    EXPECT_EQ(places[i].z, i / 60 / 3 % 2);
    EXPECT_EQ(places[i].w, i % 60 / 15);
  }
}

TEST_F(KernelTest, ThreadsMeetAtBarriers) {
  ForSeeds(4, [] {
    DeviceBuffer<float> in(Numbers(640));
    DeviceBuffer<float> out(640);
    ASSERT_EQ(Launch(ReverseBlocks<Lapse::kNone>, {10, 64}, nullptr, out.data(), in.data()),
              cudaSuccess);
    const std::vector<float> values = out.Read();
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(values[i], static_cast<float>(i / 64 * 64 + 64 - i % 64));
    }
  });
}

// Fewer than all of them may see the defect of one seed; every seed sees it here.
TEST_F(KernelTest, AMissingBarrierShows) {
  ForSeeds(8, [] {
    DeviceBuffer<float> in(Numbers(64));
    DeviceBuffer<float> out(64);
    ASSERT_EQ(Launch(ReverseBlocks<Lapse::kBarrier>, {1, 64}, nullptr, out.data(), in.data()),
              cudaSuccess);
    int unset = 0;
    for (const float value : out.Read()) {
      unset += std::isnan(value);
    }
    EXPECT_GT(unset, 0);
  });
}

TEST_F(KernelDeathTest, ABarrierThatNotAllReachIsNamed) {
  DeviceBuffer<float> in(Numbers(64));
  DeviceBuffer<float> out(64);
  EXPECT_DEATH(
      {
        Launch(ReverseBlocks<Lapse::kBarrierOfSome>, {1, 64}, nullptr, out.data(), in.data());
        cudaDeviceSynchronize();
      },
      "kernel cuda_host::ReverseBlocks.*block \\(0, 0, 0\\): 32 of 64 threads have returned.*"
      "__syncthreads\\(\\) of .*sample_kernels.cu");
}

std::vector<float> RunAddNext(void (*kernel)(float*, const float*)) {
  DeviceBuffer<float> in(Numbers(256));
  DeviceBuffer<float> out(256);
  EXPECT_EQ(Launch(kernel, {1, 64, 1024}, nullptr, out.data(), in.data()), cudaSuccess);
  return out.Read();
}

TEST_F(KernelTest, AsynchronousCopiesArriveWhenTheyAreWaitedFor) {
  ForSeeds(4, [] {
    const std::vector<float> values = RunAddNext(AddNext<Lapse::kNone>);
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(values[i], static_cast<float>(i + 1 + (i + 4) % 256 + 1));
    }
  });
}

TEST_F(KernelTest, AMissingWaitCommitOrBarrierAfterACopyShows) {
  ForSeeds(4, [] {
    for (auto kernel : {AddNext<Lapse::kWait>, AddNext<Lapse::kCommit>, AddNext<Lapse::kBarrier>}) {
      int unset = 0;
      for (const float value : RunAddNext(kernel)) {
        unset += std::isnan(value);
      }
      EXPECT_GT(unset, 0);
    }
  });
}

int WrongSums(void (*kernel)(float*, const float*)) {
  DeviceBuffer<float> in(Numbers(2 * 6 * 128));
  DeviceBuffer<float> out(64);
  EXPECT_EQ(Launch(kernel, {2, 32, 1024}, nullptr, out.data(), in.data()), cudaSuccess);
  const std::vector<float> sums = out.Read();
  int wrong = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    float expected = 0.0f;
    for (size_t tile = 0; tile < 6; ++tile) {
      for (size_t part = 1; part <= 4; ++part) {
        expected += static_cast<float>((i / 32 * 6 + tile) * 128 + (31 - i % 32) * 4 + part);
      }
    }
    wrong += sums[i] == expected ? 0 : 1;
  }
  return wrong;
}

TEST_F(KernelTest, GroupsOfCopiesArriveOneAfterTheOther) {
  ForSeeds(4, [] {
    CheckBlocksUpTo(0);  // Which would end the test.
    EXPECT_EQ(WrongSums(SumTiles<Lapse::kNone>), 0);
    EXPECT_GT(WrongSums(SumTiles<Lapse::kWait>), 0);
    EXPECT_GT(WrongSums(SumTiles<Lapse::kBarrier>), 0) << "a stage is filled while it is read";
  });
}

TEST_F(KernelDeathTest, BlocksThatRunTwiceShowARaceOfTheirThreads) {
  EXPECT_DEATH(WrongSums(SumTiles<Lapse::kBarrier>), "SumTiles.*: a race of blocks or of threads");
}

TEST_F(KernelTest, ShufflesExchangeWithinWarps) {
  DeviceBuffer<float> in(Numbers(96));
  DeviceBuffer<float> sums(3);
  DeviceBuffer<float> shifted(96);
  ASSERT_EQ(Launch(SumWarps, {1, 96}, nullptr, sums.data(), in.data(), 0xffffffffu), cudaSuccess);
  ASSERT_EQ(Launch(ShiftWarps, {1, 96}, nullptr, shifted.data(), in.data(), 5u), cudaSuccess);
  EXPECT_EQ(sums.Read(), (std::vector<float>{528, 1552, 2576}));
  const std::vector<float> values = shifted.Read();
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(values[i], static_cast<float>(i % 32 + 5 < 32 ? i + 6 : i + 1));
  }
}

TEST_F(KernelDeathTest, LanesThatAreMissingInAShuffleAreNamed) {
  DeviceBuffer<float> in(Numbers(64));
  DeviceBuffer<float> out(2);
  const auto run = [&](unsigned int threads, uint32_t mask) {
    Launch(SumWarps, {1, threads}, nullptr, out.data(), in.data(), mask);
    cudaDeviceSynchronize();
  };
  EXPECT_DEATH(run(32, 0x0000ffffu), "thread .*a shuffle at .*its own lane .* is not in the mask");
  EXPECT_DEATH(run(40, 0xffffffffu), "names lanes that do not exist: its warp has 8");
}

TEST_F(KernelTest, AMatrixProductOfAWarpHasTheLayoutOfTheInstruction) {
  std::mt19937 random(7);
  const auto draw = [&random](size_t count) {
    std::vector<__nv_bfloat16> values(count);
    for (__nv_bfloat16& value : values) {
      value = __float2bfloat16_rn(static_cast<float>(random() % 2001) / 1000.0f - 1.0f);
    }
    return values;
  };
  const std::vector<__nv_bfloat16> a = draw(256);
  const std::vector<__nv_bfloat16> b = draw(128);
  DeviceBuffer<__nv_bfloat16> device_a(a);
  DeviceBuffer<__nv_bfloat16> device_b(b);
  DeviceBuffer<float> out(Numbers(128));
  ASSERT_EQ(
      Launch(MultiplyTile, {1, 32, 768}, nullptr, out.data(), device_a.data(), device_b.data()),
      cudaSuccess);
  const std::vector<float> values = out.Read();
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      double expected = static_cast<double>(row * 8 + column + 1);
      for (size_t k = 0; k < 16; ++k) {
        expected += static_cast<double>(__bfloat162float(a[row * 16 + k])) *
                    static_cast<double>(__bfloat162float(b[column * 16 + k]));
      }
      EXPECT_NEAR(values[row * 8 + column], expected, 1e-4);
    }
  }
}

TEST_F(KernelTest, FreshMemoryHoldsNoNumbers) {
  DeviceBuffer<float> fresh(1);
  DeviceBuffer<float> out(3);
  for (int launch = 0; launch < 2; ++launch) {
    ASSERT_EQ(Launch(ReadFresh, {1, 1, 4}, nullptr, out.data(), fresh.data()), cudaSuccess);
    const std::vector<float> values = out.Read();
    EXPECT_TRUE(std::isnan(values[0])) << "static shared memory";
    EXPECT_TRUE(std::isnan(values[1])) << "dynamic shared memory";
    EXPECT_EQ(values[2], 1.0f) << "device memory";
  }
}

TEST_F(KernelDeathTest, SharedMemoryEndsWhereTheLaunchSays) {
  const auto write = [](size_t bytes, int64_t offset) {
    Launch(WriteSharedAt, {1, 1, bytes}, nullptr, offset, 'x');
    cudaDeviceSynchronize();
  };
  write(64, 63);
  EXPECT_DEATH(write(64, 64), "kernel cuda_host::WriteSharedAt.*touches .*no device memory");
  EXPECT_DEATH(write(63, 63), "something wrote past the 63 bytes");
  EXPECT_DEATH(write(64, -1), "something wrote before the dynamic shared memory");
}

TEST_F(KernelTest, LaunchesBeyondTheLimitsReturnErrors) {
  const auto launch = [](dim3 grid, dim3 block, size_t shared = 0) {
    return Launch(WriteSharedAt, {grid, block, shared}, nullptr, 0, 'x');
  };
  EXPECT_EQ(launch(0, 32), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, 1025), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, dim3(32, 33)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, dim3(1, 1, 65)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(dim3(1, 65536), 1), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);

  EXPECT_EQ(launch(1, 1, 48 << 10), cudaSuccess);
  EXPECT_EQ(launch(1, 1, (48 << 10) + 1), cudaErrorInvalidValue);
  const auto allow = [](int bytes) {
    return cudaFuncSetAttribute(WriteSharedAt, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  EXPECT_EQ(allow((227 << 10) + 1), cudaErrorInvalidValue);
  EXPECT_EQ(allow(227 << 10), cudaSuccess);
  EXPECT_EQ(launch(1, 1, 227 << 10), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);

  cudaDeviceProp device = DeviceProperties();
  device.maxThreadsPerBlock = 512;
  SetDeviceProperties(device);
  EXPECT_EQ(launch(1, 513), cudaErrorInvalidConfiguration);
}

TEST_F(KernelTest, ABlockOf1024ThreadsRunsManyTimes) {
  DeviceBuffer<float> in(Numbers(1 << 16));
  DeviceBuffer<float> out(1 << 11);
  ASSERT_EQ(Launch(SumWarps, {1 << 6, 1024}, nullptr, out.data(), in.data(), 0xffffffffu),
            cudaSuccess);
  EXPECT_EQ(out.Read()[2047], 32.0f * (1 << 16) - 496.0f);
}

TEST_F(KernelDeathTest, ARaceBetweenBlocksIsNamed) {
  DeviceBuffer<int> out(std::vector<int>(8, 7));
  const auto write_first = [&](int same) {
    Launch(WriteFirst, {4, 1}, nullptr, out.data(), same);
    cudaDeviceSynchronize();
  };
  EXPECT_DEATH(write_first(0),
               "kernel cuda_host::WriteFirst: a race: blocks \\(0, 0, 0\\) and "
               "\\(1, 0, 0\\) both write byte 0 of a device allocation of 32 bytes");
  EXPECT_DEATH(write_first(5), "a race: blocks .* both write byte 0");
  EXPECT_DEATH(
      {
        Launch(TakeNext, {8, 1}, nullptr, out.data(), 8);
        cudaDeviceSynchronize();
      },
      "kernel cuda_host::TakeNext: a race of blocks or of threads: all blocks, .* leave other "
      "bytes");
  CheckBlocksUpTo(0);
  write_first(5);
  EXPECT_EQ(out.Read()[0], 5);
}

}  // namespace
}  // namespace expertmesh::cuda_host
