// Streams, events, host functions and graphs: what is promised, and nothing else.
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/cuda/launch.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/buffers.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/fixture.h"
#include "tests/cuda_host/sample_kernels.h"

namespace expertmesh::cuda_host {
namespace {

using cuda::Launch;

using StreamTest = CudaHostTest;
using StreamDeathTest = CudaHostTest;

constexpr uint64_t kSeeds = 6;

cudaError_t Upload(const DeviceBuffer<float>& to, const PinnedBuffer<float>& from,
                   const TestStream& stream) {
  return cudaMemcpyAsync(to.data(), from.data(), sizeof(float), cudaMemcpyHostToDevice,
                         stream.get());
}

cudaError_t Double(const DeviceBuffer<float>& values, const TestStream& stream) {
  return Launch(Scale, {1, 1}, stream.get(), values.data(), values.data(), 1, 2.0f);
}

TEST_F(StreamTest, WorkIsDoneWhenItIsWaitedForAndNotBefore) {
  ForSeeds(kSeeds, [] {
    TestStream stream;
    PinnedBuffer<float> host(1);
    DeviceBuffer<float> device(1);
    host[0] = 1.0f;
    ASSERT_EQ(Upload(device, host, stream), cudaSuccess);
    ASSERT_EQ(Double(device, stream), cudaSuccess);
    // Read when the copy is executed.
    host[0] = 5.0f;
    ASSERT_EQ(cudaMemcpyAsync(host.data(), device.data(), sizeof(float), cudaMemcpyDeviceToHost,
                              stream.get()),
              cudaSuccess);
    EXPECT_EQ(host[0], 5.0f);
    EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
    EXPECT_EQ(host[0], 10.0f);
  });
}

TEST_F(StreamTest, PageableMemoryIsReadByTheCallAndWrittenByIt) {
  TestStream stream;
  DeviceBuffer<float> device(1);
  float value = 1.0f;
  ASSERT_EQ(
      cudaMemcpyAsync(device.data(), &value, sizeof(value), cudaMemcpyHostToDevice, stream.get()),
      cudaSuccess);
  value = 2.0f;
  ASSERT_EQ(Double(device, stream), cudaSuccess);
  ASSERT_EQ(
      cudaMemcpyAsync(&value, device.data(), sizeof(value), cudaMemcpyDeviceToHost, stream.get()),
      cudaSuccess);
  EXPECT_EQ(value, 2.0f);
}

// The second stream reads what the first makes. Returns how many different values it got, over many
// seeds.
size_t ValuesAcrossStreams(bool wait) {
  std::set<std::string> values;
  ForSeeds(12, [&] {
    TestStream first;
    TestStream second;
    TestEvent event;
    PinnedBuffer<float> host(1);
    DeviceBuffer<float> device(1);
    host[0] = 3.0f;
    EXPECT_EQ(Upload(device, host, first), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event.get(), first.get()), cudaSuccess);
    if (wait) {
      EXPECT_EQ(cudaStreamWaitEvent(second.get(), event.get()), cudaSuccess);
    }
    EXPECT_EQ(Double(device, second), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(second.get()), cudaSuccess);
    values.insert(std::to_string(device.Read()[0]));
  });
  return values.size();
}

TEST_F(StreamTest, StreamsRunInAnyOrderButForEvents) {
  EXPECT_EQ(ValuesAcrossStreams(true), 1u);
  EXPECT_GT(ValuesAcrossStreams(false), 1u);
}

TEST_F(StreamTest, AnEventIsWhatItWasWhenItWasWaitedFor) {
  ForSeeds(kSeeds, [] {
    TestStream first;
    TestStream second;
    TestEvent event;
    // Never recorded: nothing to wait for.
    EXPECT_EQ(cudaStreamWaitEvent(second.get(), event.get()), cudaSuccess);
    EXPECT_EQ(cudaEventQuery(event.get()), cudaSuccess);
    DeviceBuffer<float> device(std::vector<float>{1.0f});
    EXPECT_EQ(Double(device, first), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event.get(), first.get()), cudaSuccess);
    EXPECT_EQ(Double(device, first), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event.get(), first.get()), cudaSuccess);
    EXPECT_EQ(cudaEventSynchronize(event.get()), cudaSuccess);
    EXPECT_EQ(device.Read()[0], 4.0f);
  });
}

TEST_F(StreamTest, PollingMakesProgress) {
  ForSeeds(kSeeds, [] {
    TestStream stream;
    TestEvent event;
    DeviceBuffer<float> device(std::vector<float>{1.0f});
    EXPECT_EQ(Double(device, stream), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event.get(), stream.get()), cudaSuccess);
    int polls = 0;
    while (cudaEventQuery(event.get()) == cudaErrorNotReady) {
      ASSERT_LT(++polls, 10);
    }
    EXPECT_EQ(cudaStreamQuery(stream.get()), cudaSuccess);
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  });
}

TEST_F(StreamTest, TheNullStreamAndBlockingStreamsWaitForEachOther) {
  ForSeeds(kSeeds, [] {
    cudaStream_t blocking = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault), cudaSuccess);
    DeviceBuffer<float> first(std::vector<float>{1.0f});
    DeviceBuffer<float> second(1);
    DeviceBuffer<float> third(1);
    ASSERT_EQ(Launch(Scale, {1, 1}, blocking, second.data(), first.data(), 1, 2.0f), cudaSuccess);
    ASSERT_EQ(Launch(Scale, {1, 1}, nullptr, third.data(), second.data(), 1, 3.0f), cudaSuccess);
    float value = 0.0f;
    ASSERT_EQ(
        cudaMemcpyAsync(&value, third.data(), sizeof(value), cudaMemcpyDeviceToHost, blocking),
        cudaSuccess);
    EXPECT_EQ(value, 6.0f);
    EXPECT_EQ(cudaStreamDestroy(blocking), cudaSuccess);
  });
}

TEST_F(StreamTest, HostFunctionsRunInStreamOrderThoughNoCallWaits) {
  ForSeeds(kSeeds, [] {
    TestStream stream;
    PinnedBuffer<float> host(1);
    DeviceBuffer<float> device(1);
    host[0] = 4.0f;
    ASSERT_EQ(Upload(device, host, stream), cudaSuccess);
    ASSERT_EQ(Double(device, stream), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(host.data(), device.data(), sizeof(float), cudaMemcpyDeviceToHost,
                              stream.get()),
              cudaSuccess);
    absl::Notification done;
    ASSERT_EQ(cudaLaunchHostFunc(
                  stream.get(),
                  [](void* data) { static_cast<absl::Notification*>(data)->Notify(); }, &done),
              cudaSuccess);
    done.WaitForNotification();
    EXPECT_EQ(host[0], 8.0f);
    EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
  });
}

TEST_F(StreamTest, WithoutBackgroundProgressHostFunctionsWaitForCalls) {
  SetBackgroundProgress(false);
  TestStream stream;
  bool called = false;
  ASSERT_EQ(cudaLaunchHostFunc(
                stream.get(), [](void* data) { *static_cast<bool*>(data) = true; }, &called),
            cudaSuccess);
  EXPECT_FALSE(called);
  RunAll();
  EXPECT_TRUE(called);
}

TEST_F(StreamDeathTest, HostFunctionsMakeNoCalls) {
  EXPECT_DEATH(
      {
        cudaLaunchHostFunc(
            nullptr, [](void*) { cudaDeviceSynchronize(); }, nullptr);
        cudaDeviceSynchronize();
      },
      "a host function calls cudaDeviceSynchronize");
}

TEST_F(StreamDeathTest, WhatIsDestroyedIsNotUsed) {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  ASSERT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_DEATH(cudaStreamSynchronize(stream), "cudaStreamSynchronize of what is no stream, or was");
  EXPECT_DEATH(cudaEventRecord(event, nullptr), "cudaEventRecord of what is no event, or was");
  EXPECT_DEATH(cudaStreamDestroy(stream), "cudaStreamDestroy of what is no stream");
}

TEST_F(StreamTest, WorkOutlivesItsStream) {
  DeviceBuffer<float> device(std::vector<float>{1.0f});
  {
    TestStream stream;
    ASSERT_EQ(Double(device, stream), cudaSuccess);
  }
  EXPECT_EQ(device.Read()[0], 2.0f);
}

TEST_F(StreamDeathTest, PinnedMemoryIsNotFreedUnderACopy) {
  TestStream stream;
  DeviceBuffer<float> device(1);
  EXPECT_DEATH(
      {
        PinnedBuffer<float> host(1);
        Upload(device, host, stream);
      },
      "pinned memory is freed while queued work uses it: a copy of 4 bytes");
}

// A graph of two streams: both double their number, the first adds up what both have.
cudaGraphExec_t CaptureTwoStreams(const TestStream& first, const TestStream& second,
                                  const DeviceBuffer<float>& a, const DeviceBuffer<float>& b,
                                  bool join) {
  TestEvent fork;
  TestEvent joined;
  EXPECT_EQ(cudaStreamBeginCapture(first.get(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(fork.get(), first.get()), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(second.get(), fork.get()), cudaSuccess);
  EXPECT_EQ(Double(a, first), cudaSuccess);
  EXPECT_EQ(Double(b, second), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(joined.get(), second.get()), cudaSuccess);
  if (join) {
    EXPECT_EQ(cudaStreamWaitEvent(first.get(), joined.get()), cudaSuccess);
  }
  EXPECT_EQ(Launch(Scale, {1, 1}, first.get(), a.data(), b.data(), 1, 10.0f), cudaSuccess);
  cudaGraph_t graph = nullptr;
  const cudaError_t error = cudaStreamEndCapture(first.get(), &graph);
  EXPECT_EQ(error, join ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
  if (error != cudaSuccess) {
    return nullptr;
  }
  cudaGraphExec_t executable = nullptr;
  EXPECT_EQ(cudaGraphInstantiate(&executable, graph), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  return executable;
}

TEST_F(StreamTest, GraphsRunWhatWasCaptured) {
  ForSeeds(kSeeds, [] {
    TestStream first;
    TestStream second;
    DeviceBuffer<float> a(std::vector<float>{1.0f});
    DeviceBuffer<float> b(std::vector<float>{1.0f});
    cudaGraphExec_t graph = CaptureTwoStreams(first, second, a, b, true);
    EXPECT_EQ(a.Read()[0], 1.0f) << "captured, and not executed";
    for (int launch = 0; launch < 3; ++launch) {
      EXPECT_EQ(cudaGraphLaunch(graph, first.get()), cudaSuccess);
    }
    EXPECT_EQ(cudaStreamSynchronize(first.get()), cudaSuccess);
    EXPECT_EQ(a.Read()[0], 80.0f);
    EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
  });
}

TEST_F(StreamTest, ACaptureThatIsBrokenEndsWithAnError) {
  TestStream first;
  TestStream second;
  DeviceBuffer<float> a(1);
  DeviceBuffer<float> b(1);
  EXPECT_EQ(CaptureTwoStreams(first, second, a, b, false), nullptr);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(first.get(), &graph), cudaErrorStreamCaptureUnmatched);
  ASSERT_EQ(cudaStreamBeginCapture(first.get(), cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(first.get()), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(first.get(), &graph), cudaErrorStreamCaptureInvalidated);
  ASSERT_EQ(cudaStreamBeginCapture(first.get(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(first.get(), &graph), cudaErrorStreamCaptureInvalidated);
}

}  // namespace
}  // namespace expertmesh::cuda_host
