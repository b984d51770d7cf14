// Planted defects: one program as it should be, and with one thing wrong each, which the harness
// must notice without being told what to look for. The program is what a backend does for a batch:
// copies in by one stream, kernels and a product by another, copies out by a third, two batches at
// once with the same memory on the device.
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

enum class Defect {
  kNone,
  kMissingCopyIn,
  kMissingCopyOut,
  kHostPointer,         // The kernel is given the host's memory.
  kMissingEventWait,    // Compute does not wait for the copy in.
  kMissingEventOut,     // The copy out does not wait for compute.
  kMissingReuseWait,    // The next copy in does not wait until the memory was read.
  kMissingSynchronise,  // The host reads before the copy out.
  kWrongLeadingDimension,
  kGridTooSmall,
  kGridTooLarge,
  kLeakedBuffer,
  kLeakedEvent,
  kRaceBetweenBlocks,
  kHostAccess,
  kUseAfterFree,
};

constexpr int kRows = 8;
constexpr int kColumns = 64;
constexpr int kCount = kRows * kColumns;
constexpr int kThreads = 32;

class Program {
 public:
  explicit Program(Defect defect) : defect_(defect), weights_(std::vector<float>(kColumns, 1.0f)) {
    EXPECT_EQ(cublasCreate(&blas_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasSetStream(blas_, compute_.get()), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cudaMalloc(&input_, kCount * sizeof(float)), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(sums_.data(), 0, kRows * sizeof(float), nullptr), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  }

  ~Program() {
    if (defect_ == Defect::kLeakedEvent) {
      cudaEvent_t event = nullptr;
      EXPECT_EQ(cudaEventCreateWithFlags(&event, 0), cudaSuccess);
    }
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    if (defect_ != Defect::kLeakedBuffer && input_ != nullptr) {
      EXPECT_EQ(cudaFree(input_), cudaSuccess);
    }
    EXPECT_EQ(cublasDestroy(blas_), CUBLAS_STATUS_SUCCESS);
  }

  // The sums of the doubled rows of two batches at once, whose numbers are `base` + row and
  // 5 * `base` + row.
  std::vector<float> Run(float base) {
    for (int batch = 0; batch < 2; ++batch) {
      const float first = batch == 0 ? base : 5 * base;
      for (int i = 0; i < kCount; ++i) {
        staged_[static_cast<size_t>(batch * kCount + i)] = first + static_cast<float>(i / kColumns);
      }
    }
    for (int batch = 0; batch < 2; ++batch) {
      CopyIn(batch);
      Compute();
      CopyOut(batch);
    }
    return Results();
  }

 private:
  void CopyIn(int batch) {
    if (defect_ != Defect::kMissingReuseWait) {
      EXPECT_EQ(cudaStreamWaitEvent(in_.get(), read_.get()), cudaSuccess);
    }
    if (defect_ != Defect::kMissingCopyIn) {
      EXPECT_EQ(cudaMemcpyAsync(input_, staged_.data() + batch * kCount, kCount * sizeof(float),
                                cudaMemcpyHostToDevice, in_.get()),
                cudaSuccess);
    }
    EXPECT_EQ(cudaEventRecord(arrived_.get(), in_.get()), cudaSuccess);
  }

  void Compute() {
    if (defect_ != Defect::kMissingEventWait) {
      EXPECT_EQ(cudaStreamWaitEvent(compute_.get(), arrived_.get()), cudaSuccess);
    }
    const std::vector<float> pageable(kCount);
    const float* const from = defect_ == Defect::kHostPointer ? pageable.data() : input_;
    if (defect_ == Defect::kUseAfterFree) {
      EXPECT_EQ(cudaFree(input_), cudaSuccess);
      input_ = nullptr;
    }
    unsigned int blocks = kCount / kThreads;
    blocks += defect_ == Defect::kGridTooLarge ? 1 : 0;
    blocks -= defect_ == Defect::kGridTooSmall ? 1 : 0;
    EXPECT_EQ(
        Launch(ScaleUnguarded, {blocks, kThreads}, compute_.get(), doubled_.data(), from, 2.0f),
        cudaSuccess);
    if (defect_ == Defect::kRaceBetweenBlocks) {
      EXPECT_EQ(Launch(WriteFirst, {2, 1}, compute_.get(), flag_.data(), 1), cudaSuccess);
    }
    EXPECT_EQ(cudaEventRecord(read_.get(), compute_.get()), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(compute_.get(), copied_.get()), cudaSuccess);
    const float one = 1.0f;
    const float zero = 0.0f;
    const int ld = defect_ == Defect::kWrongLeadingDimension ? kColumns + 1 : kColumns;
    EXPECT_EQ(
        cublasGemmEx(blas_, CUBLAS_OP_T, CUBLAS_OP_N, kRows, 1, kColumns, &one, doubled_.data(),
                     CUDA_R_32F, ld, weights_.data(), CUDA_R_32F, kColumns, &zero, sums_.data(),
                     CUDA_R_32F, kRows, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cudaEventRecord(computed_.get(), compute_.get()), cudaSuccess);
  }

  void CopyOut(int batch) {
    if (defect_ != Defect::kMissingEventOut) {
      EXPECT_EQ(cudaStreamWaitEvent(out_.get(), computed_.get()), cudaSuccess);
    }
    if (defect_ != Defect::kMissingCopyOut) {
      EXPECT_EQ(cudaMemcpyAsync(result_.data() + batch * kRows, sums_.data(), kRows * sizeof(float),
                                cudaMemcpyDeviceToHost, out_.get()),
                cudaSuccess);
    }
    EXPECT_EQ(cudaEventRecord(copied_.get(), out_.get()), cudaSuccess);
  }

  std::vector<float> Results() {
    if (defect_ != Defect::kMissingSynchronise) {
      EXPECT_EQ(cudaStreamSynchronize(out_.get()), cudaSuccess);
    }
    if (defect_ == Defect::kHostAccess) {
      return std::vector<float>(sums_.data(), sums_.data() + kRows);
    }
    return std::vector<float>(result_.data(), result_.data() + 2 * kRows);
  }

  const Defect defect_;
  TestStream in_;
  TestStream compute_;
  TestStream out_;
  TestEvent arrived_;
  TestEvent read_;
  TestEvent computed_;
  TestEvent copied_;
  cublasHandle_t blas_ = nullptr;
  PinnedBuffer<float> staged_{2 * kCount};
  PinnedBuffer<float> result_{2 * kRows};
  float* input_ = nullptr;
  DeviceBuffer<float> doubled_{kCount};
  DeviceBuffer<float> weights_;
  DeviceBuffer<float> sums_{kRows};
  DeviceBuffer<int> flag_{1};
};

std::vector<float> Expected(float base) {
  std::vector<float> sums;
  for (int row = 0; row < 2 * kRows; ++row) {
    const float first = row < kRows ? base : 5 * base;
    sums.push_back(2.0f * kColumns * (first + static_cast<float>(row % kRows)));
  }
  return sums;
}

// How many of 6 seeds see wrong numbers, and how many a leak.
struct Seen {
  int wrong = 0;
  int leaked = 0;
};

Seen Try(Defect defect) {
  Seen seen;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    Reset(seed);
    {
      Program program(defect);
      const bool right = program.Run(1.0f) == Expected(1.0f) && program.Run(5.0f) == Expected(5.0f);
      seen.wrong += right ? 0 : 1;
    }
    seen.leaked += Leaks().empty() ? 0 : 1;
  }
  Reset(1);
  return seen;
}

using DefectsTest = CudaHostTest;
using DefectsDeathTest = CudaHostTest;

TEST_F(DefectsTest, NoneIsSeenWhereThereIsNone) {
  const Seen seen = Try(Defect::kNone);
  EXPECT_EQ(seen.wrong, 0);
  EXPECT_EQ(seen.leaked, 0);
}

TEST_F(DefectsTest, WhatWasNotCopiedIsWrong) {
  EXPECT_EQ(Try(Defect::kMissingCopyIn).wrong, 6);
  EXPECT_EQ(Try(Defect::kMissingCopyOut).wrong, 6);
}

TEST_F(DefectsTest, WhatWasNotWaitedForIsWrong) {
  EXPECT_GT(Try(Defect::kMissingEventWait).wrong, 0);
  EXPECT_GT(Try(Defect::kMissingEventOut).wrong, 0);
  EXPECT_GT(Try(Defect::kMissingReuseWait).wrong, 0);
  EXPECT_EQ(Try(Defect::kMissingSynchronise).wrong, 6);
}

TEST_F(DefectsTest, AGridTooSmallLeavesNumbersUnset) {
  EXPECT_EQ(Try(Defect::kGridTooSmall).wrong, 6);
}

TEST_F(DefectsTest, LeaksAreSeen) {
  EXPECT_EQ(Try(Defect::kLeakedBuffer).leaked, 6);
  EXPECT_EQ(Try(Defect::kLeakedEvent).leaked, 6);
}

TEST_F(DefectsDeathTest, OthersEndTheTest) {
  EXPECT_DEATH(Try(Defect::kHostPointer), "ScaleUnguarded: its pointer 2 of 2.* a copy is missing");
  EXPECT_DEATH(Try(Defect::kWrongLeadingDimension),
               "cublasGemmEx: matrix A has 8 columns with a leading dimension of 65");
  EXPECT_DEATH(Try(Defect::kGridTooLarge),
               "ScaleUnguarded, block \\(16, 0, 0\\).* touches memory out of bounds at byte 2[01]");
  EXPECT_DEATH(Try(Defect::kRaceBetweenBlocks), "WriteFirst: a race: blocks");
  EXPECT_DEATH(Try(Defect::kHostAccess), "host code touches device memory at byte 0");
  EXPECT_DEATH(Try(Defect::kUseAfterFree), "ScaleUnguarded: its pointer 2 of 2");
}

}  // namespace
}  // namespace expertmesh::cuda_host
