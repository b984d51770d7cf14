#include "common/experts/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "common/base/version.h"

namespace expertmesh::experts {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Each test says what module there is, and what it finds.
class DeviceTest : public testing::Test {
 protected:
  DeviceTest() { HaveModule(EXPERTMESH_FAKE_CUDA_MODULE, ""); }
  ~DeviceTest() override {
    unsetenv("EXPERTMESH_CUDA_MODULE");
    unsetenv("EXPERTMESH_FAKE_GPU");
  }

  static void HaveModule(const std::string& path, const std::string& words) {
    setenv("EXPERTMESH_CUDA_MODULE", path.c_str(), 1);
    setenv("EXPERTMESH_FAKE_GPU", words.c_str(), 1);
  }

  static absl::StatusOr<Device> Open(absl::string_view name, DeviceOptions options = {}) {
    options.backend.threads = 1;
    return OpenDevice(name, ProgramVersion().Text(), options);
  }

  // `name` is refused in one line, which auto gives as its reason to take the CPU.
  static void ExpectNone(absl::string_view words) {
    const absl::Status status = Open("cuda:0").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    const std::string message(status.message());
    EXPECT_THAT(message, HasSubstr(std::string(words)));
    EXPECT_THAT(message, Not(HasSubstr("\n")));
    EXPECT_EQ(message.rfind("--device=cuda:0: ", 0), 0u) << message;
    const absl::StatusOr<Device> device = Open("auto");
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ(device->backend->name(), "cpu");
    EXPECT_EQ("--device=cuda:0: " + device->note, message);
    EXPECT_EQ(device->stats, nullptr);
  }
};

TEST_F(DeviceTest, TheCpuIsThereWhateverTheModule) {
  HaveModule("/nowhere", "");
  const absl::StatusOr<Device> device = Open("cpu");
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ(device->backend->name(), "cpu");
  EXPECT_EQ(device->note, "");
}

TEST_F(DeviceTest, AGpuIsOpenedByItsNumberOrByAuto) {
  HaveModule(EXPERTMESH_FAKE_CUDA_MODULE, "devices=2");
  for (const char* const name : {"cuda", "cuda:0", "cuda:1", "auto"}) {
    const absl::StatusOr<Device> device = Open(name);
    ASSERT_TRUE(device.ok()) << name << ": " << device.status();
    EXPECT_EQ(device->backend->name(), "cuda");
    EXPECT_EQ(device->note, "");
    EXPECT_EQ(device->stats().memory_total_bytes, 4000u);
  }
}

TEST_F(DeviceTest, ReadsTheFlagOfProducts) {
  EXPECT_EQ(*ParseDeviceProduct("fixed-order"), DeviceProduct::kFixedOrder);
  EXPECT_EQ(*ParseDeviceProduct("cublas"), DeviceProduct::kCublas);
  const absl::Status status = ParseDeviceProduct("cutlass").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "--device-product=cutlass: use fixed-order or cublas");
}

TEST_F(DeviceTest, ANumberThatIsNotThereIsRefusedWithThoseThatAre) {
  HaveModule(EXPERTMESH_FAKE_CUDA_MODULE, "devices=2");
  absl::Status status = Open("cuda:2").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "--device=cuda:2: this process can see 2 GPUs, cuda:0 to cuda:1");
  HaveModule(EXPERTMESH_FAKE_CUDA_MODULE, "devices=1");
  EXPECT_EQ(Open("cuda:1").status().message(),
            "--device=cuda:1: this process can see 1 GPU, cuda:0");
}

TEST_F(DeviceTest, WithoutAModuleThereIsNone) {
  HaveModule("/nowhere/libexpertmesh_cuda.so", "");
  ExpectNone("this program was built without CUDA");
}

TEST_F(DeviceTest, AFileThatIsNoModuleIsNone) {
  HaveModule(EXPERTMESH_SOURCE_DIR "/README.md", "");
  ExpectNone("the CUDA module cannot be opened");
}

TEST_F(DeviceTest, AModuleOfAnotherBuildIsNone) {
  HaveModule(EXPERTMESH_FAKE_CUDA_MODULE, "other_build");
  ExpectNone(" is of 0.0.1, and this program of ");
}

TEST_F(DeviceTest, WithoutADriverThereIsNone) {
  HaveModule(EXPERTMESH_FAKE_CUDA_MODULE, "no_driver");
  ExpectNone("cudaGetDeviceCount: CUDA driver version is insufficient");
}

TEST_F(DeviceTest, ADriverThatSeesNoGpuIsNone) {
  HaveModule(EXPERTMESH_FAKE_CUDA_MODULE, "devices=0");
  ExpectNone("there is no GPU that this process can see");
}

TEST_F(DeviceTest, WhatAGpuCannotDoIsNoReasonToTakeTheCpu) {
  DeviceOptions options;
  options.backend.compute_dtype = Dtype::kF16;
  EXPECT_EQ(Open("auto", options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DeviceTest, MemoryOfADeviceIsNoneOfTheCpu) {
  DeviceOptions options;
  options.memory_bytes = 1 << 20;
  EXPECT_EQ(Open("cpu", options).status().message(), "--device-memory is for GPUs");
  EXPECT_TRUE(Open("cuda:0", options).ok());
  HaveModule(EXPERTMESH_FAKE_CUDA_MODULE, "no_driver");
  EXPECT_TRUE(Open("auto", options).ok());
}

TEST_F(DeviceTest, OtherNamesAreRefused) {
  for (const char* const name :
       {"", "gpu", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999999999", "CPU"}) {
    const absl::Status status = Open(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("use cpu, cuda:N or auto")) << name;
  }
}

}  // namespace
}  // namespace expertmesh::experts
