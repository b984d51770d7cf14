#include "common/cuda/cuda_status.h"

#include <cstdint>
#include <string>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::cuda {
namespace {

using testing::HasSubstr;

// Errors of each kind that naming `error` counts.
std::tuple<uint64_t, uint64_t, uint64_t> CountedBy(cudaError_t error) {
  const ErrorCounts before = CountedErrors();
  (void)ToStatus(error, "cudaCall");
  const ErrorCounts after = CountedErrors();
  return {after.memory - before.memory, after.hardware - before.hardware,
          after.other - before.other};
}

TEST(CudaStatusTest, ErrorsAreCountedByTheirKind) {
  EXPECT_EQ(CountedBy(cudaSuccess), std::tuple(0, 0, 0));
  EXPECT_EQ(CountedBy(cudaErrorMemoryAllocation), std::tuple(1, 0, 0));
  EXPECT_EQ(CountedBy(cudaErrorECCUncorrectable), std::tuple(0, 1, 0));
  EXPECT_EQ(CountedBy(cudaErrorNvlinkUncorrectable), std::tuple(0, 1, 0));
  EXPECT_EQ(CountedBy(cudaErrorIllegalAddress), std::tuple(0, 0, 1));
  EXPECT_EQ(CountedBy(cudaErrorUnknown), std::tuple(0, 0, 1));
}

TEST(CudaStatusTest, WhatOnlyANewProcessCuresIsALostDevice) {
  for (const cudaError_t error : {cudaErrorIllegalAddress, cudaErrorECCUncorrectable,
                                  cudaErrorLaunchFailure, cudaErrorContained}) {
    const absl::Status status = ToStatus(error, "cudaCall");
    EXPECT_TRUE(IsSticky(error));
    EXPECT_TRUE(IsDeviceLost(status)) << status;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("the device is lost: cudaCall: "));
  }
  for (const cudaError_t error : {cudaErrorMemoryAllocation, cudaErrorUnknown}) {
    EXPECT_FALSE(IsSticky(error));
    EXPECT_FALSE(IsDeviceLost(ToStatus(error, "cudaCall")));
  }
}

}  // namespace
}  // namespace expertmesh::cuda
