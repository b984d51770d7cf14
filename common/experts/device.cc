#include "common/experts/device.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "common/experts/backend_factory.h"
#include "common/experts/cuda_module.h"

namespace expertmesh::experts {
namespace {

constexpr char kCpu[] = "cpu";
constexpr char kAuto[] = "auto";
// Where else a module may be, for tests and for those who try one out.
constexpr char kModuleVariable[] = "EXPERTMESH_CUDA_MODULE";

// Beside the program, as in a build folder, or where it is installed.
std::vector<std::filesystem::path> ModulePaths() {
  if (const char* const given = std::getenv(kModuleVariable); given != nullptr && *given != '\0') {
    return {given};
  }
  std::error_code error;
  const std::filesystem::path folder =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  return {folder / kCudaModuleFile, folder / EXPERTMESH_CUDA_MODULE_FOLDER / kCudaModuleFile};
}

absl::StatusOr<const CudaModule*> OpenModule(absl::string_view build) {
  std::optional<std::filesystem::path> path;
  for (const std::filesystem::path& candidate : ModulePaths()) {
    std::error_code error;
    if (!path.has_value() && std::filesystem::exists(candidate, error)) {
      path = candidate;
    }
  }
  if (!path.has_value()) {
    return absl::UnavailableError(
        absl::StrCat("this program was built without CUDA: ", kCudaModuleFile,
                     " is not beside it; build with EXPERTMESH_CUDA=on, or use --device=cpu"));
  }
  void* const library = dlopen(path->c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::UnavailableError(absl::StrCat("the CUDA module cannot be opened: ", dlerror(),
                                               "; install the CUDA runtime and cuBLAS, or use "
                                               "--device=cpu"));
  }
  const auto function = reinterpret_cast<CudaModuleFunction>(dlsym(library, kCudaModuleFunction));
  if (function == nullptr) {
    return absl::UnavailableError(absl::StrCat(path->string(), " is no CUDA module of Expertmesh"));
  }
  const CudaModule* const module = function();
  if (module->build != build) {
    return absl::UnavailableError(absl::StrCat(path->string(), " is of ", module->build,
                                               ", and this program of ", build,
                                               "; install both of one build"));
  }
  return module;
}

absl::StatusOr<Device> OpenGpu(int device, absl::string_view build, const DeviceOptions& options) {
  ASSIGN_OR_RETURN(const CudaModule* const module, OpenModule(build));
  ASSIGN_OR_RETURN(const int devices, module->count_devices());
  if (devices < 1) {
    return absl::UnavailableError(
        "there is no GPU that this process can see; check nvidia-smi and CUDA_VISIBLE_DEVICES, or "
        "use --device=cpu");
  }
  if (device >= devices) {
    return absl::InvalidArgumentError(absl::StrCat(
        "this process can see ", devices, devices == 1 ? " GPU, cuda:0" : " GPUs, cuda:0 to cuda:",
        devices == 1 ? "" : absl::StrCat(devices - 1)));
  }
  return module->open(device, options);
}

absl::StatusOr<Device> OpenCpu(const DeviceOptions& options) {
  if (options.memory_bytes != 0) {
    return absl::InvalidArgumentError("--device-memory is for GPUs");
  }
  Device device;
  ASSIGN_OR_RETURN(device.backend, MakeBackend(kCpu, options.backend));
  device.info.name = kCpu;
  return device;
}

// N of "cuda:N"; nothing: it is no name of a GPU.
std::optional<int> GpuOf(absl::string_view name) {
  if (name == "cuda") {
    return 0;
  }
  uint32_t device = 0;
  constexpr uint32_t kMost = 1 << 16;
  if (absl::ConsumePrefix(&name, "cuda:") && absl::SimpleAtoi(name, &device) && device < kMost) {
    return static_cast<int>(device);
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<DeviceProduct> ParseDeviceProduct(absl::string_view name) {
  if (name == "fixed-order") {
    return DeviceProduct::kFixedOrder;
  }
  if (name == "cublas") {
    return DeviceProduct::kCublas;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--device-product=", name, ": use fixed-order or cublas"));
}

absl::StatusOr<Device> OpenDevice(absl::string_view name, absl::string_view build,
                                  const DeviceOptions& options) {
  if (name == kCpu) {
    return OpenCpu(options);
  }
  if (name == kAuto) {
    absl::StatusOr<Device> device = OpenGpu(0, build, options);
    if (!absl::IsUnavailable(device.status())) {
      return device;
    }
    DeviceOptions cpu_options = options;
    cpu_options.memory_bytes = 0;  // It was said of a GPU that may not be there.
    ASSIGN_OR_RETURN(Device cpu, OpenCpu(cpu_options));
    cpu.note = std::string(device.status().message());
    return cpu;
  }
  const std::optional<int> gpu = GpuOf(name);
  if (!gpu.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("--device=", name, ": use cpu, cuda:N or auto"));
  }
  absl::StatusOr<Device> device = OpenGpu(*gpu, build, options);
  return device.ok() ? std::move(device)
                     : WithContext(absl::StrCat("--device=", name), device.status());
}

}  // namespace expertmesh::experts
