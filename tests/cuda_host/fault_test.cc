// Calls that fail: one, from one on, without a driver.
#include <cstdint>
#include <string>
#include <vector>

#include "common/cuda/launch.h"
#include "cublas_v2.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/buffers.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/fixture.h"
#include "tests/cuda_host/sample_kernels.h"

namespace expertmesh::cuda_host {
namespace {

using cuda::Launch;

using FaultTest = CudaHostTest;

TEST_F(FaultTest, TheCallThatIsNamedFailsAndNoOther) {
  void* memory = nullptr;
  FailCall(2, Failure::kOutOfMemory);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_FALSE(FailureHappened());
  EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorMemoryAllocation);
  EXPECT_TRUE(FailureHappened());
  EXPECT_EQ(LastCall(), "cudaMalloc");
  EXPECT_EQ(CallCount(), 2);
  EXPECT_EQ(memory, nullptr);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(CallCount(), 2) << "reading errors is not counted";
  FailCall(1, Failure::kPlain);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorUnknown);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

TEST_F(FaultTest, StickyErrorsStay) {
  FailCall(1, Failure::kSticky);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaStreamQuery(nullptr), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  cublasHandle_t handle = nullptr;
  EXPECT_EQ(cublasCreate(&handle), CUBLAS_STATUS_EXECUTION_FAILED);
  Reset(1);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  TestStream stream;
  EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
}

TEST_F(FaultTest, ALaunchThatFailsShowsLater) {
  bool called = false;
  float* device = nullptr;
  ASSERT_EQ(cudaMalloc(&device, sizeof(float)), cudaSuccess);
  FailCall(1, Failure::kLaunchFailure);
  EXPECT_EQ(Launch(Scale, {1, 1}, nullptr, device, device, 1, 2.0f), cudaSuccess);
  EXPECT_TRUE(FailureHappened());
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  EXPECT_EQ(cudaLaunchHostFunc(
                nullptr, [](void* data) { *static_cast<bool*>(data) = true; }, &called),
            cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_FALSE(called) << "host functions are not called after an error";
  EXPECT_EQ(cudaFree(device), cudaErrorLaunchFailure);
  EXPECT_TRUE(Leaks().empty()) << "freed all the same";
}

TEST_F(FaultTest, WithoutADriverCallsFailAndSetNothing) {
  RemoveDriver();
  int count = -7;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
  EXPECT_EQ(count, -7);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInsufficientDriver);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInsufficientDriver);
  int version = -7;
  EXPECT_EQ(cudaDriverGetVersion(&version), cudaSuccess);
  EXPECT_EQ(version, 0);
  void* pinned = nullptr;
  EXPECT_EQ(cudaMallocHost(&pinned, 4), cudaErrorInsufficientDriver);
  EXPECT_EQ(pinned, nullptr);
  cublasHandle_t handle = nullptr;
  EXPECT_EQ(cublasCreate(&handle), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorInsufficientDriver), "cudaErrorInsufficientDriver");
}

// Doubles a number on the device. Frees what it made, also when a call in between fails; one that
// `leaks` does not.
cudaError_t DoubleOnDevice(float* value, bool leaks) {
  cudaStream_t stream = nullptr;
  cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) {
    return error;
  }
  float* device = nullptr;
  error = cudaMalloc(&device, sizeof(float));
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(device, value, sizeof(float), cudaMemcpyHostToDevice, stream);
  }
  if (error == cudaSuccess) {
    error = Launch(Scale, {1, 1}, stream, device, device, 1, 2.0f);
  }
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(value, device, sizeof(float), cudaMemcpyDeviceToHost, stream);
  }
  if (error != cudaSuccess && leaks) {
    return error;
  }
  const cudaError_t freed = cudaFree(device);
  const cudaError_t destroyed = cudaStreamDestroy(stream);
  return error != cudaSuccess ? error : freed != cudaSuccess ? freed : destroyed;
}

TEST_F(FaultTest, ASweepReachesEveryCall) {
  int runs = 0;
  ForEachFailure([&](const std::string& failing) {
    ++runs;
    float value = 3.0f;
    const cudaError_t error = DoubleOnDevice(&value, false);
    if (failing.empty()) {
      EXPECT_EQ(error, cudaSuccess);
      EXPECT_EQ(value, 6.0f);
    } else {
      EXPECT_NE(error, cudaSuccess);
    }
  });
  EXPECT_EQ(runs, 1 + 4 * 7);
}

TEST_F(FaultTest, ASweepFindsWhatIsLeftBehind) {
  float value = 3.0f;
  FailCall(4, Failure::kPlain);
  EXPECT_EQ(DoubleOnDevice(&value, true), cudaErrorUnknown);
  EXPECT_EQ(Leaks().size(), 2u);
  Reset(1);
}

}  // namespace
}  // namespace expertmesh::cuda_host
