// Where experts are computed: what --device says, and the backend that it gives.
//
// What computes on GPUs is a module of its own, libexpertmesh_cuda.so, which is opened when a GPU
// is asked for: a program of this build runs, and is linked, on machines and in images that have no
// CUDA library.
#ifndef EXPERTMESH_COMMON_EXPERTS_DEVICE_H_
#define EXPERTMESH_COMMON_EXPERTS_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/experts/backend.h"

namespace expertmesh::experts {

// Who multiplies on a GPU.
enum class DeviceProduct {
  // Kernels that sum in one order: a row's bits do not depend on its batch.
  kFixedOrder,
  // cuBLAS, which chooses kernels by shape: the last bits of a row may depend on its batch.
  kCublas,
};

// "fixed-order" or "cublas". INVALID_ARGUMENT otherwise.
absl::StatusOr<DeviceProduct> ParseDeviceProduct(absl::string_view name);

struct DeviceOptions {
  BackendOptions backend = {};
  // Says nothing of the CPU.
  DeviceProduct product = DeviceProduct::kFixedOrder;
  // Most memory of the device for weights, in bytes; 0: what is free there.
  uint64_t memory_bytes = 0;
  // Called at most once, from any thread, when the device computes no more until the process ends.
  // Every batch is answered with UNAVAILABLE from then on, and with `why`. Must not block, and must
  // not use the backend.
  std::function<void(const absl::Status& why)> on_lost = nullptr;
};

struct DeviceStats {
  // Memory of the device that is in use, by whichever process, and that there is, in bytes.
  uint64_t memory_used_bytes = 0;
  uint64_t memory_total_bytes = 0;
  // Calls of the device that failed since the process began: for want of memory; for ECC, NVLink or
  // the device itself; for anything else.
  uint64_t memory_errors = 0;
  uint64_t hardware_errors = 0;
  uint64_t other_errors = 0;
};

// What a device is, as it tells itself; 0: it does not.
struct DeviceInfo {
  std::string name = {};
  double peak_bytes_per_second = 0;
  double peak_bf16_flops = 0;  // Dense, by tensor cores.
};

struct Device {
  std::unique_ptr<Backend> backend;
  DeviceInfo info = {};
  // Why "auto" chose the CPU; else empty.
  std::string note = {};
  // Thread-safe, while the backend lives; empty for the CPU.
  std::function<DeviceStats()> stats = nullptr;
};

// `name`: "cpu"; "cuda:N", or "cuda" for the first; "auto": the first GPU where there is one, else
// the CPU. `build`: ProgramVersion().Text(), which a module has to be of. Messages are one line.
//   INVALID_ARGUMENT  there is no device of that name, or it cannot do what an option asks for.
//   UNAVAILABLE       there is no GPU, no driver or no module; "auto" then takes the CPU.
absl::StatusOr<Device> OpenDevice(absl::string_view name, absl::string_view build,
                                  const DeviceOptions& options);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_DEVICE_H_
