// The conformance suite of backends on a real GPU, through the module that programs open.
#include <string>
#include <utility>

#include "common/base/version.h"
#include "common/experts/device.h"
#include "gtest/gtest.h"
#include "tests/unit/common/experts/backend_conformance.h"

namespace expertmesh::experts {
namespace {

BackendCase GpuCase(std::string name, Dtype dtype, DeviceProduct product) {
  BackendCase backend_case;
  backend_case.name = std::move(name);
  backend_case.make = [dtype, product](int) -> absl::StatusOr<std::unique_ptr<Backend>> {
    DeviceOptions options;
    options.backend.compute_dtype = dtype;
    options.product = product;
    absl::StatusOr<Device> device = OpenDevice("cuda:0", ProgramVersion().Text(), options);
    if (!device.ok()) {
      return device.status();
    }
    return std::move(device->backend);
  };
  backend_case.bits_of_rows = product == DeviceProduct::kFixedOrder;
  backend_case.tolerance = dtype == Dtype::kBF16 ? 1e-2 : 1e-5;
  return backend_case;
}

INSTANTIATE_TEST_SUITE_P(
    Gpu, BackendConformance,
    testing::Values(GpuCase("bf16", Dtype::kBF16, DeviceProduct::kFixedOrder),
                    GpuCase("f32", Dtype::kF32, DeviceProduct::kFixedOrder),
                    GpuCase("bf16_cublas", Dtype::kBF16, DeviceProduct::kCublas),
                    GpuCase("f32_cublas", Dtype::kF32, DeviceProduct::kCublas)),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace expertmesh::experts
