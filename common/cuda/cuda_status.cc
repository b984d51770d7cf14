#include "common/cuda/cuda_status.h"

#include <atomic>
#include <cstddef>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace expertmesh::cuda {
namespace {

constexpr absl::string_view kDeviceLost = "expertmesh/device-lost";

// By ErrorKind.
std::atomic<uint64_t> error_counts[3];

ErrorKind KindOf(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return ErrorKind::kMemory;
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorDevicesUnavailable:
    case cudaErrorExternalDevice:
      return ErrorKind::kHardware;
    default:
      return ErrorKind::kOther;
  }
}

absl::string_view WhatToDo(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "hold fewer experts on the device or in pinned memory";
    case cudaErrorNoDevice:
      return "the driver sees no device; compute on the CPU, or check nvidia-smi";
    case cudaErrorInsufficientDriver:
      return "no driver, or one older than the CUDA runtime; compute on the CPU, or install one";
    case cudaErrorInvalidDevice:
      return "choose one of the devices that nvidia-smi lists";
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorNoKernelImageForDevice:
      return "this build has no code for the device; build for its compute capability";
    default:
      return IsSticky(error) ? "start the process again" : "this is a defect of the program";
  }
}

absl::StatusCode CodeOf(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::StatusCode::kResourceExhausted;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorNoKernelImageForDevice:
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

bool IsSticky(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorDevicesUnavailable:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

absl::Status ToStatus(cudaError_t error, absl::string_view call) {
  if (error == cudaSuccess) {
    return absl::OkStatus();
  }
  CountError(KindOf(error));
  const std::string message = absl::StrCat(call, ": ", cudaGetErrorString(error), " (",
                                           cudaGetErrorName(error), "); ", WhatToDo(error));
  if (IsSticky(error)) {
    return DeviceLost(message);
  }
  (void)cudaGetLastError();
  return absl::Status(CodeOf(error), message);
}

ErrorCounts CountedErrors() {
  const auto counted = [](ErrorKind kind) {
    return error_counts[static_cast<size_t>(kind)].load(std::memory_order_relaxed);
  };
  return {counted(ErrorKind::kMemory), counted(ErrorKind::kHardware), counted(ErrorKind::kOther)};
}

void CountError(ErrorKind kind) {
  error_counts[static_cast<size_t>(kind)].fetch_add(1, std::memory_order_relaxed);
}

absl::Status DeviceLost(absl::string_view why) {
  absl::Status status = absl::UnavailableError(absl::StrCat("the device is lost: ", why));
  status.SetPayload(kDeviceLost, absl::Cord());
  return status;
}

bool IsDeviceLost(const absl::Status& status) { return status.GetPayload(kDeviceLost).has_value(); }

}  // namespace expertmesh::cuda
